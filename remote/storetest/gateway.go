package storetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Gateway is a running S3 server (versitygw) over a folder.
type Gateway struct {
	Endpoint             string // "http://127.x.y.z:port", or https://
	Region               string
	Bucket               string // exists
	AccessKey, SecretKey string
	// Folder holds the objects of Bucket as plain files, the keys being the
	// paths: tests damage them there. What the server knows about them is
	// elsewhere.
	Folder string
	// CertFile is the PEM file of the server's own certificate, "" without
	// TLS; Roots holds the same.
	CertFile string
	Roots    *x509.CertPool

	binary, address, keyFile string
	versions                 string // folder of what was deleted or written over; "" if that is gone
	log                      string
	process                  *exec.Cmd
	ended                    chan struct{} // closed when process has
}

// StartGateway starts an S3 server on the loopback interface and stops it
// when the test ends. The first call of a test run builds the server, pinned
// in integration/versitygw, which takes about a minute; later ones find it in
// the user's cache folder. With -short the test is skipped.
func StartGateway(t testing.TB, withTLS bool) *Gateway {
	t.Helper()
	return startGateway(t, withTLS, false)
}

// StartLockingGateway is StartGateway with a bucket that keeps versions and
// has object lock, but no default for it.
func StartLockingGateway(t testing.TB) *Gateway {
	t.Helper()
	return startGateway(t, false, true)
}

func startGateway(t testing.TB, withTLS, locking bool) *Gateway {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: starts an S3 server")
	}
	work := t.TempDir()
	g := &Gateway{
		Region: "us-east-1", Bucket: "backups", AccessKey: "testaccess", SecretKey: "testsecret",
		Folder: filepath.Join(work, "data", "backups"), log: filepath.Join(work, "log"),
	}
	for _, folder := range []string{g.Folder, filepath.Join(work, "meta"), filepath.Join(work, "users")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if locking {
		g.versions = filepath.Join(work, "versions")
		if err := g.makeLocking(); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if g.binary, err = buildGateway(t.Context()); err != nil {
		t.Fatalf("build the S3 server: %v", err)
	}
	g.address, err = freeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.Endpoint = "http://" + g.address
	if withTLS {
		g.Endpoint = "https://" + g.address
		g.CertFile, g.keyFile = filepath.Join(work, "cert.pem"), filepath.Join(work, "key.pem")
		if g.Roots, err = writeCertificate(g.address, g.CertFile, g.keyFile); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(g.Stop)
	if err := g.Start(t.Context()); err != nil {
		t.Fatalf("start the S3 server: %v", err)
	}
	return g
}

// Start starts the server again after Stop, with the same address and
// objects, and waits until it answers.
func (g *Gateway) Start(ctx context.Context) error {
	data := filepath.Dir(g.Folder)
	args := []string{
		"--port", g.address, "--access", g.AccessKey, "--secret", g.SecretKey, "--region", g.Region,
		"--health", "/health", "--keep-alive", "--quiet", "--iam-dir", filepath.Join(filepath.Dir(data), "users"),
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if g.CertFile != "" {
		args = append(args, "--cert", g.CertFile, "--key", g.keyFile)
		client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: g.Roots}
	}
	args = append(args, "posix", "--sidecar", g.meta())
	if g.versions != "" {
		args = append(args, "--versioning-dir", g.versions)
	}
	args = append(args, data)
	log, err := os.OpenFile(g.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the server has its own copy
	g.process = exec.Command(g.binary, args...)
	g.process.Stdout, g.process.Stderr = log, log
	g.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // also when the test is killed
	if err := g.process.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	g.ended = ended
	go func(process *exec.Cmd) {
		_ = process.Wait() // the log says why it ended
		close(ended)
	}(g.process)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.Endpoint+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			err = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return err
			}
		}
		select {
		case <-ended:
			err = errors.New("it has ended")
		case <-ctx.Done():
			err = fmt.Errorf("it does not answer: %w", errors.Join(err, ctx.Err()))
		case <-time.After(5 * time.Millisecond): // polls: there is nothing else to wait for
			continue
		}
		output, _ := os.ReadFile(g.log)
		return fmt.Errorf("%w\n%s", err, output)
	}
}

// AddUser makes a user with keys of his own, who may do what the bucket's
// policy allows and nothing else.
func (g *Gateway) AddUser(ctx context.Context, access, secret string) error {
	out, err := exec.CommandContext(ctx, g.binary, "admin", "--access", g.AccessKey, "--secret", g.SecretKey, "--region", g.Region,
		"--endpoint-url", g.Endpoint, "create-user", "--access", access, "--secret", secret, "--role", "user").CombinedOutput()
	if err != nil {
		return fmt.Errorf("make user %q: %w\n%s", access, err, out)
	}
	return nil
}

// Stop kills the server, as a crash or a power cut does.
func (g *Gateway) Stop() {
	if g.process == nil || g.process.Process == nil {
		return
	}
	_ = g.process.Process.Kill() // it may have ended by itself
	<-g.ended
	g.process = nil
}

// freeAddress returns an address that nobody listens on. The host is one of
// millions: on 127.0.0.1 the port could become another server's, or that of any
// connection, before the server listens there, and while it is stopped.
func freeAddress(ctx context.Context) (string, error) {
	host := fmt.Sprintf("127.%d.%d.%d", 1+mathrand.IntN(254), mathrand.IntN(256), 1+mathrand.IntN(254))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// buildGateway returns the path of the server's program and builds it if the
// cache has none for these versions.
func buildGateway(ctx context.Context) (string, error) {
	gomod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	module := filepath.Join(filepath.Dir(string(gomod)), "integration", "versitygw")
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		h.Write(text)
	}
	fmt.Fprint(h, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	cache, err := os.UserCacheDir()
	if err != nil { // no home
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("vaultik-test-%d", os.Getuid()))
	}
	cache = filepath.Join(cache, "vaultik-test")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	binary := filepath.Join(cache, fmt.Sprintf("versitygw-%x", h.Sum(nil)[:8]))

	// Several test programs may want it at the same time.
	lock, err := os.OpenFile(binary+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	build := exec.CommandContext(ctx, "go", "-C", module, "build", "-o", binary+".new", "github.com/versity/versitygw/cmd/versitygw")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, output)
	}
	return binary, os.Rename(binary+".new", binary)
}

// writeCertificate makes a certificate for a host that signs itself.
func writeCertificate(address, certFile, keyFile string) (*x509.CertPool, error) {
	host, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vaultik test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{host.Addr().AsSlice()}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(certFile, cert, 0o600); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	return roots, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}
