package s3

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/s3utils"
	"golang.org/x/time/rate"
)

// PathStyle says how requests name the bucket.
type PathStyle string

// The values of PathStyle.
const (
	PathStyleAuto PathStyle = ""    // in the host name at Amazon, Google and Alibaba, else in the path
	PathStyleOn   PathStyle = "on"  // https://host/bucket/key
	PathStyleOff  PathStyle = "off" // https://bucket.host/key
)

// Options says which store to open. Only Bucket is required.
type Options struct {
	// Endpoint is "https://host" or "https://host:port", or the same with
	// http:// for a service without TLS. "" is AWS_ENDPOINT_URL_S3 or
	// AWS_ENDPOINT_URL if set, else Amazon S3.
	Endpoint string
	// Region is the service's region. "" is AWS_REGION or AWS_DEFAULT_REGION
	// if set, else the service is asked.
	Region string
	Bucket string
	// Prefix is put before every key, with a "/" between; it neither begins
	// nor ends with one.
	Prefix    string
	PathStyle PathStyle

	// AccessKey and SecretKey, if set, are used instead of what the
	// environment offers. SessionToken belongs to them.
	AccessKey, SecretKey, SessionToken string

	// Transport is for tests and unusual networks; nil is one of our own.
	Transport http.RoundTripper

	// Limit, unless nil, slows uploads down: a token is a byte of a PUT's
	// body, sent again or not. Stores may share one.
	Limit *rate.Limiter
	// Slow, unless nil, is told that the service keeps a call waiting, and
	// why, for a person to see: when for some 5 s attempts have failed or the
	// answer to one is missing, and while that lasts, every 30 s. It is called
	// from any goroutine.
	Slow func(why error)

	// Attempts is how often a call is tried, and how often in a row a
	// download may break without a byte of progress. 0 means 10, which with
	// the pauses between them is about half a minute.
	Attempts int
	// Patience is how long after its first failure a call is tried again; it
	// is tried three times in any case. 0 means one minute.
	Patience time.Duration
	// Backoff is the longest first pause before another attempt. It doubles
	// with every attempt, up to 100 times as much; the pause is random
	// between 0 and that, and minio adds up to 200 ms. 0 means 200 ms.
	Backoff time.Duration
	// Stall is how long a transfer may make no progress, and an answer may
	// take to begin, before the attempt counts as failed. The answer to a
	// complete upload may take twice as long; when a store is opened, a third
	// must do, and for Get a quarter. 0 means 60 s.
	Stall time.Duration
}

// parameters are the query parameters of a store's address.
var parameters = []string{"endpoint", "path_style", "region"}

// ParseURL reads a store's address,
//
//	s3://bucket/prefix?endpoint=https://host:port&region=name&path_style=auto|on|off
//
// in which everything but the bucket may be left out. It is the inverse of
// Options.URL.
func ParseURL(address string) (Options, error) {
	fail := func(format string, args ...any) (Options, error) {
		return Options{}, fmt.Errorf("store address %q: %w", redact(address), fmt.Errorf(format, args...))
	}
	u, err := url.Parse(address)
	if err != nil {
		return Options{}, fmt.Errorf("store address %q: %w", redact(address), errors.Unwrap(err))
	}
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case u.Scheme != "s3" || u.Opaque != "":
		return fail("it must begin with s3://bucket")
	case u.User != nil:
		return fail("credentials do not belong into the address: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
	case u.Fragment != "":
		return fail("it has a \"#\" part, which means nothing here; write %%23 if the prefix contains \"#\"")
	case u.Port() != "":
		return fail("%q is no bucket name; a host and port go into ?endpoint=https://host:port", u.Host)
	case err != nil:
		return fail("its parameters cannot be read: %w", err)
	}
	for name, values := range query {
		if !slices.Contains(parameters, name) {
			return fail("unknown parameter %q; there are %s", name, strings.Join(parameters, ", "))
		}
		if len(values) != 1 || values[0] == "" {
			return fail("parameter %q needs exactly one value", name)
		}
	}
	o := Options{
		Endpoint: query.Get("endpoint"),
		Region:   query.Get("region"),
		Bucket:   u.Host,
		Prefix:   strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/"),
	}
	switch style := query.Get("path_style"); style {
	case "", "auto":
	case "on", "true":
		o.PathStyle = PathStyleOn
	case "off", "false":
		o.PathStyle = PathStyleOff
	default:
		return fail("path_style is %q; it can be auto, on or off", style)
	}
	if err := o.check(); err != nil {
		return fail("%w", err)
	}
	return o, nil
}

// URL returns the address that ParseURL reads. It holds no secrets.
func (o Options) URL() string {
	q := url.Values{}
	for name, value := range map[string]string{"endpoint": o.Endpoint, "region": o.Region, "path_style": string(o.PathStyle)} {
		if value != "" {
			q.Set(name, value)
		}
	}
	u := url.URL{Scheme: "s3", Host: o.Bucket, RawQuery: strings.NewReplacer("%3A", ":", "%2F", "/").Replace(q.Encode())}
	if o.Prefix != "" {
		u.Path = "/" + o.Prefix
	}
	return u.String()
}

func (o *Options) check() error {
	if o.Bucket == "" {
		return errors.New("the bucket is missing: write s3://bucket/prefix")
	}
	if err := s3utils.CheckValidBucketName(o.Bucket); err != nil {
		return fmt.Errorf("bucket %q: %w", o.Bucket, err)
	}
	if o.Prefix != "" {
		for part := range strings.SplitSeq(o.Prefix, "/") {
			if part == "" || part == "." || part == ".." {
				return fmt.Errorf("prefix %q: it must be names with one \"/\" between two of them, none of them \".\" or \"..\"", o.Prefix)
			}
		}
		if err := s3utils.CheckValidObjectName(o.Prefix); err != nil {
			return fmt.Errorf("prefix %q: %w", o.Prefix, err)
		}
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return fmt.Errorf("endpoint %q: write https://host or https://host:port (or http://, which protects nothing on the way but what vaultik encrypts)", redact(o.Endpoint))
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			return fmt.Errorf("endpoint %q: there must be nothing but a host and a port after %s://", redact(o.Endpoint), u.Scheme)
		}
	}
	switch o.PathStyle {
	case PathStyleAuto, PathStyleOn, PathStyleOff:
	default:
		return fmt.Errorf("path style %q: it can be \"\", \"on\" or \"off\"", o.PathStyle)
	}
	if o.Attempts < 0 || o.Backoff < 0 || o.Stall < 0 || o.Patience < 0 {
		return errors.New("attempts and durations cannot be negative")
	}
	return nil
}

// complete checks o and fills in what was left to defaults.
func (o *Options) complete() error {
	if o.Endpoint == "" {
		o.Endpoint = firstOf(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	}
	if o.Region == "" {
		o.Region = firstOf(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	}
	if err := o.check(); err != nil {
		return fmt.Errorf("open store %s: %w", o.URL(), err)
	}
	if o.Transport == nil {
		o.Transport = newTransport(o.Limit != nil)
	}
	if o.Attempts == 0 {
		o.Attempts = 10
	}
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	if o.Backoff == 0 {
		o.Backoff = 200 * time.Millisecond
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	return nil
}

// host returns the endpoint as minio wants it, and whether it has TLS.
func (o *Options) host() (string, bool) {
	if o.Endpoint == "" {
		return "s3.amazonaws.com", true
	}
	u, _ := url.Parse(o.Endpoint) // check did
	return u.Host, u.Scheme == "https"
}

var userinfo = regexp.MustCompile(`(?i)(://|:%2f%2f|%3a%2f%2f)[^/?#&]*(@|%40)`)

// redact hides passwords in an address that goes into an error.
func redact(address string) string { return userinfo.ReplaceAllString(address, "${1}…@") }

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
