package s3_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/s3"
)

func TestStoreAddresses(t *testing.T) {
	for _, c := range []struct {
		address string
		want    s3.Options
	}{
		{"s3://backups", s3.Options{Bucket: "backups"}},
		{"s3://backups/", s3.Options{Bucket: "backups"}},
		{"s3://backups/hosts/all?region=eu-central-1", s3.Options{Bucket: "backups", Prefix: "hosts/all", Region: "eu-central-1"}},
		{"s3://my.bucket-1/a%20b/?path_style=auto", s3.Options{Bucket: "my.bucket-1", Prefix: "a b"}},
		{
			"s3://backups/p?endpoint=https://s3.example.org:9000&path_style=on&region=x",
			s3.Options{Bucket: "backups", Prefix: "p", Endpoint: "https://s3.example.org:9000", PathStyle: s3.PathStyleOn, Region: "x"},
		},
		{
			"s3://backups?endpoint=http%3A%2F%2F%5B%3A%3A1%5D%3A80&path_style=off",
			s3.Options{Bucket: "backups", Endpoint: "http://[::1]:80", PathStyle: s3.PathStyleOff},
		},
	} {
		got, err := s3.ParseURL(c.address)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s (-want +got), %v:\n%s", c.address, err, diff)
			continue
		}
		again, err := s3.ParseURL(got.URL())
		if diff := cmp.Diff(got, again); diff != "" || err != nil {
			t.Errorf("%s printed as %s (-want +got), %v:\n%s", c.address, got.URL(), err, diff)
		}
	}
}

func TestBadStoreAddressesSayWhy(t *testing.T) {
	for address, want := range map[string]string{
		"":                                     "s3://bucket",
		"backups":                              "s3://bucket",
		"s3:backups":                           "s3://bucket",
		"https://backups":                      "s3://bucket",
		"s3://":                                "bucket is missing",
		"s3:///prefix":                         "bucket is missing",
		"s3://b":                               "bucket",
		"s3://host:9000/bucket":                "?endpoint=",
		"s3://key:s3cret@backups":              "AWS_ACCESS_KEY_ID",
		"s3://backups/a//b":                    "prefix",
		"s3://backups/a/../b":                  "prefix",
		"s3://backups/a#b":                     "%23",
		"s3://backups?regoin=x":                "endpoint, path_style, region",
		"s3://backups?region=":                 "exactly one value",
		"s3://backups?region=a&region=b":       "exactly one value",
		"s3://backups?path_style=maybe":        "auto, on or off",
		"s3://backups?endpoint=s3.example.org": "https://host",
		"s3://backups?endpoint=ftp://s3.example.org":        "https://host",
		"s3://backups?endpoint=https://":                    "https://host",
		"s3://backups?endpoint=https://s3.example.org/path": "nothing but a host",
		"s3://backups?endpoint=https://k:s3cret@host":       "nothing but a host",
		"s3://backups/%zz":                                  "store address",
		"s3://backups?a;b":                                  "parameters",
	} {
		_, err := s3.ParseURL(address)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want a word about %q", address, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: the error shows the secret: %v", address, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("s3://backups/hosts/all?endpoint=https://s3.example.org:9000&path_style=on&region=x")
	f.Add("s3://backups/a%20b?region=%20")
	f.Add("s3://user:pw@backups:9000//../?region=a&region=b#c")
	f.Fuzz(func(t *testing.T, address string) {
		o, err := s3.ParseURL(address)
		if err != nil {
			return
		}
		again, err := s3.ParseURL(o.URL())
		if diff := cmp.Diff(o, again); diff != "" || err != nil {
			t.Errorf("%q printed as %q (-want +got), %v:\n%s", address, o.URL(), err, diff)
		}
	})
}

// TestCredentialsComeFromTheUsualPlaces opens a store with nothing but an
// environment, and looks with which access key it signs.
func TestCredentialsComeFromTheUsualPlaces(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	shared := "[default]\naws_access_key_id = file\naws_secret_access_key = s\n[work]\naws_access_key_id = work\naws_secret_access_key = s\n"
	if err := os.WriteFile(filepath.Join(home, ".aws", "credentials"), []byte(shared), 0o600); err != nil {
		t.Fatal(err)
	}
	container := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"AccessKeyId": "container", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}`)
	}))
	defer container.Close()

	for _, c := range []struct {
		what string
		env  map[string]string
		want string // access key; "" means that there are none
		why  string // there are none, behind the places
	}{
		{"the environment comes first", map[string]string{"HOME": home, "AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "s"}, "env", ""},
		{"then the shared file", map[string]string{"HOME": home}, "file", ""},
		{"with its profiles", map[string]string{"HOME": home, "AWS_PROFILE": "work"}, "work", ""},
		{"then the container", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": container.URL}, "container", ""},
		{"a profile that is not there", map[string]string{"HOME": home, "AWS_PROFILE": "typo"}, "", `; the shared files (~/.aws, AWS_PROFILE): section "typo" does not exist`},
		{"nothing", nil, "", ""},
		{"half a key", map[string]string{"AWS_ACCESS_KEY_ID": "env"}, "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			for _, name := range []string{
				"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
				"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
				"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
			} {
				t.Setenv(name, "")
			}
			t.Setenv("HOME", t.TempDir())
			t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			f := newFake(t)
			var signed string
			f.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
				signed = r.Header.Get("Authorization")
				return false
			}
			s, err := s3.Open(t.Context(), s3.Options{Endpoint: f.URL, Region: "us-east-1", Bucket: "backups"})
			if c.want == "" {
				says := "no S3 credentials in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and the shared files (~/.aws, AWS_PROFILE)" + c.why
				if !errors.Is(err, remote.ErrDenied) || err.Error() != "open store s3://backups?endpoint="+f.URL+"&region=us-east-1: "+says {
					t.Errorf("%v; want %v that says %q", err, remote.ErrDenied, says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if err := s.Put(t.Context(), "ann/a", nil); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(signed, "Credential="+c.want+"/") {
				t.Errorf("signed as %q, want %q", signed, c.want)
			}
		})
	}
}

func TestEndpointAndRegionComeFromTheEnvironment(t *testing.T) {
	f := newFake(t)
	t.Setenv("AWS_ENDPOINT_URL_S3", f.URL)
	t.Setenv("AWS_REGION", "mars-1")
	var signed string
	f.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		signed = r.Header.Get("Authorization")
		return false
	}
	s := open(t, s3.Options{Bucket: "backups", AccessKey: "a", SecretKey: "s"})
	if err := s.Put(t.Context(), "ann/a", nil); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(signed, "/mars-1/s3/") {
		t.Errorf("signed as %q, want region mars-1", signed)
	}
}
