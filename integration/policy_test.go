package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/s3"
	"git.eeqj.de/sneak/vaultik/remote/storetest"
)

// policy is one of those that the README and docs/S3.md show.
type policy struct {
	name       string
	Statements []statement `json:"Statement"`
}

type statement struct {
	Effect    string
	Action    oneOrMore
	Resource  oneOrMore
	Condition map[string]map[string]oneOrMore
}

// oneOrMore is a list of which one may stand alone.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(o))
}

// readPolicy reads the policy that stands behind a comment with its name.
func readPolicy(t *testing.T, name string) policy {
	t.Helper()
	for _, page := range []string{"../README.md", "../docs/S3.md"} {
		text, err := os.ReadFile(page)
		must(t, err)
		_, rest, found := strings.Cut(string(text), "<!-- policy: "+name+" -->\n```json\n")
		shown, _, ended := strings.Cut(rest, "```\n")
		if !found || !ended {
			continue
		}
		p := policy{name: name}
		must(t, json.Unmarshal([]byte(shown), &p))
		return p
	}
	t.Fatalf("neither the README nor docs/S3.md has a policy %q", name)
	return policy{}
}

// allows returns the number of the statement that allows an action, -1 if none
// does.
func (p policy) allows(action, resource string, context map[string]string) int {
	for i, s := range p.Statements {
		if s.Effect == "Allow" && slices.Contains(s.Action, action) && s.about(resource) && s.holds(context) {
			return i
		}
	}
	return -1
}

func (s statement) about(resource string) bool {
	return slices.ContainsFunc(s.Resource, func(pattern string) bool { return like(pattern, resource) })
}

func (s statement) holds(context map[string]string) bool {
	for operator, keys := range s.Condition {
		for key, want := range keys {
			value, there := context[key]
			switch operator {
			case "Null":
				if (want[0] == "true") == there {
					return false
				}
			case "StringLike":
				if !there || !slices.ContainsFunc(want, func(pattern string) bool { return like(pattern, value) }) {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

// like matches a pattern in which * is any text, slashes included.
func like(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	for i, part := range parts {
		switch {
		case i == 0 && !strings.HasPrefix(text, part), i == len(parts)-1 && !strings.HasSuffix(text, part):
			return false
		case i == 0:
			text = text[len(part):]
			continue
		}
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
	return text == "" || len(parts) > 1
}

// guard stands before an S3 server and lets through what a policy allows, as
// Amazon's service decides it.
type guard struct {
	policy policy
	server *httputil.ReverseProxy

	mu     sync.Mutex
	used   map[string]bool // "statement action"
	denied map[string]bool // "action folder": what was refused
}

// behind returns a store's address behind a policy, and its guard.
func behind(t *testing.T, gw *storetest.Gateway, p policy) (*guard, string) {
	t.Helper()
	to, err := url.Parse(gw.Endpoint)
	must(t, err)
	g := &guard{policy: p, used: map[string]bool{}, denied: map[string]bool{}}
	g.server = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host // is signed
		},
		ModifyResponse: func(resp *http.Response) error {
			// Who may not list is not told that an object is not there.
			bucket := "arn:aws:s3:::" + gw.Bucket
			if resp.StatusCode == http.StatusNotFound && p.allows("s3:ListBucket", bucket, nil) < 0 {
				return errForbidden
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, errForbidden) {
				forbid(w)
				return
			}
			w.WriteHeader(http.StatusBadGateway)
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	front := httptest.NewServer(g)
	t.Cleanup(front.Close)
	return g, fmt.Sprintf("s3://%s/house?endpoint=%s&region=%s&path_style=on", gw.Bucket, front.URL, gw.Region)
}

var errForbidden = errors.New("forbidden")

func forbid(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprint(w, `<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>`)
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	action := map[string]string{http.MethodPut: "s3:PutObject", http.MethodGet: "s3:GetObject", http.MethodHead: "s3:GetObject", http.MethodDelete: "s3:DeleteObject"}[r.Method]
	resource := "arn:aws:s3:::" + bucket + "/" + key
	context := map[string]string{}
	if v := r.Header.Get("If-None-Match"); v != "" {
		context["s3:if-none-match"] = v
	}
	if key == "" {
		action, resource = "s3:ListBucket", "arn:aws:s3:::"+bucket
		if r.Method != http.MethodGet || !r.URL.Query().Has("list-type") {
			action = r.Method + " " + r.URL.RawQuery // none that a policy here allows
			if r.URL.Query().Has("versioning") {
				action = "s3:GetBucketVersioning"
			}
		}
		key = r.URL.Query().Get("prefix")
		if r.URL.Query().Has("prefix") {
			context["s3:prefix"] = key
		}
	}
	i := g.policy.allows(action, resource, context)
	g.mu.Lock()
	if i < 0 {
		g.denied[action+" "+path.Dir(key)] = true
	} else {
		g.used[fmt.Sprint(i, " ", action)] = true
	}
	g.mu.Unlock()
	if i < 0 {
		_, _ = io.Copy(io.Discard, r.Body)
		forbid(w)
		return
	}
	g.server.ServeHTTP(w, r)
}

// check fails if an action of the policy was never used, or one was refused
// that is not among refused.
func (g *guard) check(t *testing.T, refused ...string) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, s := range g.policy.Statements {
		for _, action := range s.Action {
			if !g.used[fmt.Sprint(i, " ", action)] {
				t.Errorf("policy %q: %s of statement %d was never used", g.policy.name, action, i+1)
			}
		}
	}
	for _, what := range slices.Sorted(maps.Keys(g.denied)) {
		if !slices.ContainsFunc(refused, func(r string) bool { return like(r, what) }) {
			t.Errorf("policy %q refused %s", g.policy.name, what)
		}
	}
}

// fleet is a store with a first machine whose credentials allow everything.
func fleet(t *testing.T) (gw *storetest.Gateway, admin *machine, env []string) {
	t.Helper()
	gw = storetest.StartGateway(t, false)
	env = []string{"AWS_ACCESS_KEY_ID=" + gw.AccessKey, "AWS_SECRET_ACCESS_KEY=" + gw.SecretKey}
	admin = newMachine(t, fmt.Sprintf("s3://%s/house?endpoint=%s&region=%s&path_style=on", gw.Bucket, gw.Endpoint, gw.Region), env...)
	write(t, filepath.Join(admin.dir, "source/file"), "the first machine's")
	admin.init("--x25519", filepath.Join(admin.dir, "source"))
	return gw, admin, env
}

// join sets a further machine up as the writer "web", behind a policy.
func join(t *testing.T, gw *storetest.Gateway, admin *machine, env []string, policyName string) (m *machine, g *guard, src string) {
	t.Helper()
	g, store := behind(t, gw, readPolicy(t, policyName))
	m = newMachine(t, store, env...)
	src = filepath.Join(m.dir, "source")
	write(t, filepath.Join(src, "folder/file"), "the second machine's")
	random(t, filepath.Join(src, "noise"), 300_000)
	m.run("init", "--store", store, "--writer", "web", "--root", rootOf(t, admin), "--recipient", recipientOf(t, admin), src)
	return m, g, src
}

// rootOf is the root key that a machine trusts.
func rootOf(t *testing.T, m *machine) string {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(m.dir, "vaultik.toml"))
	must(t, err)
	_, rest, found := strings.Cut(string(config), "root_key = \"")
	key, _, _ := strings.Cut(rest, `"`)
	if !found {
		t.Fatalf("no root key in\n%s", config)
	}
	return key
}

// askedForVersions: whoever deletes asks whether the bucket keeps versions, and
// takes no for an answer.
const askedForVersions = "s3:GetBucketVersioning ."

func TestAWriterNeedsItsOwnPolicyAndNoMore(t *testing.T) {
	gw, admin, env := fleet(t)
	m, g, src := join(t, gw, admin, env, "writer")
	m.run("backup", "--quiet")
	admin.run("key", "certify", "web", "--kit", admin.kit())
	write(t, filepath.Join(src, "folder/file"), "changed")
	m.run("backup", "--quiet")
	m.run("key", "rotate")
	admin.run("key", "certify", "web", "--kit", admin.kit())
	m.run("backup", "--quiet")
	m.run("backup", "--quiet")
	if out := m.run("key", "list", "web", "--root", rootOf(t, admin), "--store", admin.store); !strings.Contains(out, "4…") {
		t.Errorf("the new key is not in charge:\n%s", out)
	}
	// Only when it opens a store, or looks for other writers, does a machine
	// ask for more, and does without.
	g.check(t, "s3:ListBucket house", "s3:ListBucket .", askedForVersions)

	reader, store := behind(t, gw, readPolicy(t, "reader"))
	r := newMachine(t, store, env...)
	dest := filepath.Join(r.dir, "restored")
	r.run("restore", "--store", store, "--identity", admin.kit(), "web/latest:"+src, dest)
	same(t, "the snapshot", scan(t, src, Look{Root: true}), scan(t, dest, Look{Root: true}))
	reader.check(t)
}

// A machine that may only create objects, its maintainer and its reader.
func TestAMachineThatMayOnlyAppend(t *testing.T) {
	gw, admin, env := fleet(t)
	m, g, src := join(t, gw, admin, env, "append-only")
	if _, stderr, code := m.try("backup"); code != 0 || !strings.Contains(stderr, "the store's credentials do not let this writer") {
		t.Fatalf("the first backup: exit %d\n%s", code, stderr)
	}
	admin.run("key", "certify", "web", "--purge-maintainer", "--kit", admin.kit())
	for i := range 3 {
		write(t, filepath.Join(src, "folder/file"), fmt.Sprint("version ", i))
		m.run("backup", "--quiet")
	}

	// A new key, without a look at the store.
	m.run("key", "rotate")
	next := filepath.Join(m.dir, "state/web/signing.key.next")
	admin.run("key", "certify", "web", "--kit", admin.kit(), "--from", "5")
	m.fails(1, []string{"key", "rotate", "--certified", "6"}, "the next run of writer \"web\" is 5")
	m.run("key", "rotate", "--certified", "5")
	if _, err := os.Stat(next); err == nil {
		t.Error("the new key still waits")
	}
	m.run("backup", "--quiet")

	// It may neither overwrite nor look nor delete.
	g.check(t, "s3:ListBucket *", "s3:GetObject *", "s3:DeleteObject *", askedForVersions)
	_, rest, _ := strings.Cut(m.store, "endpoint=")
	base, _, _ := strings.Cut(rest, "&")
	for _, method := range []string{http.MethodPut, http.MethodGet, http.MethodDelete} {
		req, err := http.NewRequestWithContext(t.Context(), method, base+"/"+gw.Bucket+"/house/web/signers/1.pub", strings.NewReader("x"))
		must(t, err)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		must(t, resp.Body.Close())
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}

	// The trusted machine forgets two runs and clears up after them.
	keyFile := filepath.Join(admin.dir, "maintainer.key")
	admin.run("key", "generate", keyFile)
	admin.run("key", "certify", "--maintainer", "--all-writers", "--key", keyFile+".pub", "--kit", admin.kit())
	maintainer, address := behind(t, gw, readPolicy(t, "maintainer"))
	forget(t, address, env, rootOf(t, admin), keyFile, 3)
	maintainer.check(t, askedForVersions)

	reader, store := behind(t, gw, readPolicy(t, "reader"))
	r := newMachine(t, store, env...)
	if out := r.run("snapshot", "list", "--store", store, "--identity", admin.kit(), "--writer", "web"); strings.Count(out, "\nweb-") != 3 {
		t.Errorf("three of five snapshots are left, this shows\n%s", out)
	}
	dest := filepath.Join(r.dir, "restored")
	r.run("restore", "--store", store, "--identity", admin.kit(), "web/latest:"+src, dest)
	same(t, "the snapshot", scan(t, src, Look{Root: true}), scan(t, dest, Look{Root: true}))
	reader.check(t)
	m.run("backup", "--quiet") // goes on
}

// forget keeps the newest runs of the writer "web", and frees what only the
// others needed, with a maintainer's key and credentials.
func forget(t *testing.T, store string, env []string, root, keyFile string, keep int) {
	t.Helper()
	m := newMachine(t, store, env...)
	where := []string{"--store", store, "--root", root, "--writer", "web"}
	m.run(append([]string{"snapshot", "purge", "--yes", "--keep-last", fmt.Sprint(keep), "--key", keyFile}, where...)...)
	if out := m.run(append([]string{"prune"}, where...)...); !strings.HasPrefix(out, "web: freed ") {
		t.Errorf("nothing was freed:\n%s", out)
	}
	m.run(append([]string{"audit"}, where...)...)
}

// A server that enforces policies by itself, with a user for each.
func TestAServerEnforcesThePolicies(t *testing.T) {
	gw, admin, _ := fleet(t)
	users := map[string][]string{} // the credentials of each
	var all []map[string]any
	for _, name := range []string{"writer", "append-only", "maintainer", "reader"} {
		must(t, gw.AddUser(t.Context(), name, name+"-secret"))
		users[name] = []string{"AWS_ACCESS_KEY_ID=" + name, "AWS_SECRET_ACCESS_KEY=" + name + "-secret"}
		for _, s := range readPolicy(t, name).Statements {
			one := map[string]any{"Effect": s.Effect, "Action": s.Action, "Resource": s.Resource, "Principal": map[string]any{"AWS": []string{name}}}
			if name == "append-only" {
				// This server does not know the condition, and has another writer here.
				one["Resource"] = []string{"arn:aws:s3:::backups/house/log/*", "arn:aws:s3:::backups/house/.probe-*"}
			} else if s.Condition != nil {
				one["Condition"] = s.Condition
			}
			all = append(all, one)
		}
	}
	text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": all})
	must(t, err)
	client, err := minio.New(strings.TrimPrefix(gw.Endpoint, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(gw.AccessKey, gw.SecretKey, ""), Region: gw.Region, BucketLookup: minio.BucketLookupPath,
	})
	must(t, err)
	must(t, client.SetBucketPolicy(t.Context(), gw.Bucket, string(text)))

	writers := map[string]*machine{}
	for user, name := range map[string]string{"writer": "web", "append-only": "log"} {
		m := newMachine(t, admin.store, users[user]...)
		writers[name] = m
		src := filepath.Join(m.dir, "source")
		write(t, filepath.Join(src, "file"), "of "+name)
		m.run("init", "--store", m.store, "--writer", name, "--root", rootOf(t, admin), "--recipient", recipientOf(t, admin), src)
		m.run("backup", "--quiet")
		admin.run("key", "certify", name, "--kit", admin.kit())
		for i := range 2 {
			write(t, filepath.Join(src, "file"), fmt.Sprint(name, i))
			m.run("backup", "--quiet")
		}
	}
	keyFile := filepath.Join(admin.dir, "maintainer.key")
	admin.run("key", "generate", keyFile)
	admin.run("key", "certify", "--maintainer", "--all-writers", "--key", keyFile+".pub", "--kit", admin.kit())
	forget(t, admin.store, users["maintainer"], rootOf(t, admin), keyFile, 2)

	r := newMachine(t, admin.store, users["reader"]...)
	for name, m := range writers {
		src, dest := filepath.Join(m.dir, "source"), filepath.Join(r.dir, name)
		r.run("restore", "--store", r.store, "--identity", admin.kit(), name+"/latest:"+src, dest)
		same(t, "the snapshot of "+name, scan(t, src, Look{Root: true}), scan(t, dest, Look{Root: true}))
		m.run("backup", "--quiet") // goes on
	}
	// None of them reaches beyond its policy.
	for user, calls := range map[string][]func(remote.Store) error{
		"writer": {
			func(s remote.Store) error { return s.Put(t.Context(), "log/signers/9.pub", []byte("x")) },
			func(s remote.Store) error { return s.Delete(t.Context(), "web/signers/1.pub") },
		},
		"append-only": {
			func(s remote.Store) error { _, err := s.Stat(t.Context(), "log/signers/1.pub"); return err },
			func(s remote.Store) error { return s.Delete(t.Context(), "log/signers/1.pub") },
			func(s remote.Store) error { return s.Put(t.Context(), "web/signers/9.pub", []byte("x")) },
		},
		"maintainer": {func(s remote.Store) error { return s.Put(t.Context(), "web/signers/9.pub", []byte("x")) }},
		"reader": {
			func(s remote.Store) error { return s.Put(t.Context(), "web/signers/9.pub", []byte("x")) },
			func(s remote.Store) error { return s.Delete(t.Context(), "web/signers/1.pub") },
		},
	} {
		s := openAs(t, admin.store, users[user])
		for i, call := range calls {
			if err := call(s); !errors.Is(err, remote.ErrDenied) {
				t.Errorf("call %d of the %s: %v, want it to be denied", i+1, user, err)
			}
		}
	}
}

// openAs opens a store with credentials of the environment's form.
func openAs(t *testing.T, address string, env []string) *s3.Store {
	t.Helper()
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	o, err := s3.ParseURL(address)
	must(t, err)
	store, err := s3.Open(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	return store
}
