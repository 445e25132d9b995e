package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"git.eeqj.de/sneak/vaultik/remote"
)

// findCredentials returns credentials that renew themselves, after it got
// some once. There is no anonymous access.
func findCredentials(ctx context.Context, o Options) (*credentials.Credentials, error) {
	if o.AccessKey != "" || o.SecretKey != "" {
		return credentials.NewStaticV4(o.AccessKey, o.SecretKey, o.SessionToken), nil
	}
	c := credentials.New(&chain{sources: sources(o.Region)})
	_, err := c.GetWithContext(&credentials.CredContext{Client: metadataClient(), Context: ctx})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, denied{err}
	}
	return c, nil
}

// errNoCredentials becomes remote.ErrDenied in the end. Until then it may be
// a metadata service in a bad moment.
var errNoCredentials = errors.New("no S3 credentials")

// denied is a remote.ErrDenied whose text does not blame the store.
type denied struct{ error }

func (d denied) Is(target error) bool { return target == remote.ErrDenied }
func (d denied) Unwrap() error        { return d.error }

// source is one place where credentials may be.
type source struct {
	name     string
	provider credentials.Provider
	guess    bool // that it fails means only that nothing is there
}

// sources returns the places in the order in which the AWS tools look.
func sources(region string) []source {
	s := []source{
		{"the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)", &credentials.EnvAWS{}, false},
		{"the shared files (~/.aws, AWS_PROFILE)", &credentials.FileAWSCredentials{}, false},
	}
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if os.Getenv(name) != "" {
			return append(s, source{"the container (" + name + ")", &credentials.IAM{Client: metadataClient(), Region: region}, false})
		}
	}
	if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		return s
	}
	return append(s, source{"the machine's role (EC2 metadata service)", &credentials.IAM{Client: metadataClient(), Region: region}, true})
}

// metadataClient is impatient: on a machine without metadata service nothing
// answers at its address.
func metadataClient() *http.Client {
	return &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) {
				if ip := net.ParseIP(r.URL.Hostname()); ip != nil && ip.IsLinkLocalUnicast() {
					return nil, nil // the metadata services are on this machine's own link
				}
				return http.ProxyFromEnvironment(r)
			},
			DialContext:       (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			DisableKeepAlives: true,
		},
	}
}

// chain tries one source after the other. Unlike minio's Chain it says where
// it found no credentials, and what is wrong there, instead of going on without.
type chain struct {
	sources []source
	current credentials.Provider
}

// RetrieveWithCredContext implements credentials.Provider.
func (c *chain) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	var places []string
	var wrong error
	for _, s := range c.sources {
		v, err := s.provider.RetrieveWithCredContext(cc)
		if err == nil && v.AccessKeyID != "" && v.SecretAccessKey != "" {
			c.current = s.provider
			return v, nil
		}
		places = append(places, s.name)
		if err != nil && wrong == nil && !s.guess && !errors.Is(err, fs.ErrNotExist) {
			wrong = fmt.Errorf("%s: %w", s.name, err)
		}
	}
	last := len(places) - 1
	text := strings.Join(places[:last], ", ") + " and " + places[last]
	if wrong != nil {
		return credentials.Value{}, fmt.Errorf("%w in %s; %w", errNoCredentials, text, wrong)
	}
	return credentials.Value{}, fmt.Errorf("%w in %s", errNoCredentials, text)
}

// Retrieve implements credentials.Provider.
func (c *chain) Retrieve() (credentials.Value, error) { return c.RetrieveWithCredContext(nil) }

// IsExpired implements credentials.Provider.
func (c *chain) IsExpired() bool { return c.current == nil || c.current.IsExpired() }
