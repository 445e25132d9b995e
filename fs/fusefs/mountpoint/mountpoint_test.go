package mountpoint

import "testing"

func TestAPathWithSpecialCharactersIsFoundInTheMountTable(t *testing.T) {
	for in, want := range map[string]string{`/mnt`: "/mnt", `/a\040b\011c\012d\134e`: "/a b\tc\nd\\e", `\134040`: `\040`} {
		if got := unescape(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}
