package seal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"git.eeqj.de/sneak/vaultik/remote"
	"git.eeqj.de/sneak/vaultik/remote/seal"
)

var update = flag.Bool("update", false, "make the files in testdata/v1 anew; a released format never needs it")

// vector is one entry of testdata/v1/vectors.json: what a reader of format 1
// must make of the file NAME.age.
type vector struct {
	Name      string `json:"name"`
	Identity  string `json:"identity"` // the file IDENTITY.identity
	PlainSize int64  `json:"plain_size"`
	Plain     string `json:"plain,omitempty"` // if it is opened
	Want      string `json:"want"`            // ok, corrupt or "no identity"
}

const sql = "-- vaultik dump 1 full 1\nBEGIN;\nINSERT INTO paths VALUES(1,0,X'');\nCOMMIT;\n"

func makeVectors(t *testing.T) {
	t.Helper()
	x, h := load(t, "x25519"), load(t, "hybrid")
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	frame := enc.EncodeAll([]byte(sql), nil)
	n := int64(len(sql))
	good := sealed(t, x.recipients, []byte(sql))
	var vectors []vector
	for _, v := range []struct {
		vector
		object []byte
	}{
		{vector{"x25519", "x25519", n, sql, "ok"}, good},
		{vector{"hybrid", "hybrid", n, sql, "ok"}, sealed(t, h.recipients, []byte(sql))},
		{vector{"empty", "x25519", 0, "", "ok"}, sealed(t, x.recipients, nil)},
		{vector{"wrong-identity", "hybrid", n, "", "no identity"}, good},
		{vector{"size-too-large", "x25519", n + 1, "", "corrupt"}, good},
		{vector{"size-too-small", "x25519", n - 1, "", "corrupt"}, good},
		{vector{"truncated", "x25519", n, "", "corrupt"}, good[:len(good)-1]},
		{vector{"extended", "x25519", n, "", "corrupt"}, append(bytes.Clone(good), '\n')},
		{vector{"flipped-byte", "x25519", n, "", "corrupt"}, flip(good, len(good)-30)},
		{vector{"not-compressed", "x25519", n, "", "corrupt"}, encrypted(t, x.recipients, []byte(sql))},
		{vector{"trailing-bytes", "x25519", n, "", "corrupt"}, encrypted(t, x.recipients, append(bytes.Clone(frame), "; x"...))},
		{vector{"frame-cut", "x25519", n, "", "corrupt"}, encrypted(t, x.recipients, frame[:len(frame)-3])},
		{vector{"checksum-wrong", "x25519", n, "", "corrupt"}, encrypted(t, x.recipients, flip(frame, len(frame)-1))},
		{vector{"window-too-large", "x25519", 0, "", "corrupt"}, encrypted(t, x.recipients, []byte("\x28\xb5\x2f\xfd\x00\x80\x01\x00\x00"))},
	} {
		if err := os.WriteFile(filepath.Join("testdata", "v1", v.Name+".age"), v.object, 0o644); err != nil {
			t.Fatal(err)
		}
		vectors = append(vectors, v.vector)
	}
	text, err := json.MarshalIndent(vectors, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", "v1", "vectors.json"), append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "v1", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

func (v vector) object(t testing.TB) []byte {
	t.Helper()
	object, err := os.ReadFile(filepath.Join("testdata", "v1", v.Name+".age"))
	if err != nil {
		t.Fatal(err)
	}
	return object
}

func TestVectors(t *testing.T) {
	if *update {
		makeVectors(t)
	}
	for _, v := range readVectors(t) {
		plain, err := open(v.object(t), load(t, v.Identity).identities, v.PlainSize)
		got := "ok"
		switch {
		case errors.Is(err, remote.ErrCorrupt):
			got = "corrupt"
		case errors.Is(err, seal.ErrNoIdentity):
			got = "no identity"
		case err != nil:
			got = err.Error()
		}
		if got != v.Want {
			t.Errorf("%s: %s (%v), want %s", v.Name, got, err, v.Want)
		}
		if err == nil && string(plain) != v.Plain {
			t.Errorf("%s: %q, want %q", v.Name, plain, v.Plain)
		}
	}
}

// TestStockProgramsOpenIt is the promise of recovery without this program.
func TestStockProgramsOpenIt(t *testing.T) {
	for _, program := range []string{"age", "zstd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the program %s is not installed", program)
		}
	}
	for _, v := range readVectors(t) {
		if v.Want != "ok" {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			identity := filepath.Join("testdata", "v1", v.Identity+".identity")
			packed, err := exec.Command("age", "-d", "-i", identity, filepath.Join("testdata", "v1", v.Name+".age")).Output()
			if exit := (*exec.ExitError)(nil); v.Identity == "hybrid" && errors.As(err, &exit) && bytes.Contains(exit.Stderr, []byte("unknown identity type")) {
				t.Skip("the age program is older than 1.3 and knows no post-quantum keys")
			}
			if err != nil {
				t.Fatal(err)
			}
			zstd := exec.Command("zstd", "-d", "-c")
			zstd.Stdin = bytes.NewReader(packed)
			plain, err := zstd.Output()
			if err != nil || string(plain) != v.Plain {
				t.Errorf("%q, %v", plain, err)
			}
		})
	}
}

// FuzzOpen opens arbitrary bytes.
func FuzzOpen(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.object(f), v.PlainSize)
	}
	ids := append(load(f, "x25519").identities, load(f, "hybrid").identities...)
	f.Fuzz(func(t *testing.T, object []byte, size int64) { checkOpen(t, object, size, ids) })
}

// FuzzOpenStream opens arbitrary bytes that were encrypted, so that what is
// behind the authentication is tried too.
func FuzzOpenStream(f *testing.F) {
	p := load(f, "x25519")
	for _, v := range readVectors(f) {
		if r, err := decrypt(v.object(f), p); err == nil {
			f.Add(r, v.PlainSize)
		}
	}
	f.Fuzz(func(t *testing.T, packed []byte, size int64) {
		checkOpen(t, encrypted(t, p.recipients, packed), size, p.identities)
	})
}

// decrypt undoes age only.
func decrypt(object []byte, p person) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(object), p.identities...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// checkOpen asserts what holds for any input: the size is kept exactly or the
// error says why not.
func checkOpen(t *testing.T, object []byte, size int64, ids []age.Identity) {
	t.Helper()
	if size > 1<<24 {
		return // a legal bomb: as large as the manifest says it is
	}
	plain, err := open(object, ids, size)
	switch {
	case err == nil && int64(len(plain)) != max(size, 0):
		t.Errorf("%d bytes instead of %d, and no error", len(plain), size)
	case int64(len(plain)) > max(size, 0):
		t.Errorf("%d bytes were let through, promised were %d", len(plain), size)
	case err != nil && !errors.Is(err, remote.ErrCorrupt) && !errors.Is(err, seal.ErrNoIdentity):
		t.Errorf("an error of no kind: %v", err)
	}
}
