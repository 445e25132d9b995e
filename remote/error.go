package remote

import "fmt"

// StoreError is what a call of a Store that keeps its objects elsewhere failed
// with. Callers that name the object themselves take Err.
type StoreError struct {
	Op    string // "put", "get", "stat", "list", "delete", …
	Key   string // the object or the prefix; "" if it concerns the whole store
	Where string // the store, as people know it
	Err   error
}

func (e *StoreError) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("%s %s: %v", e.Op, e.Where, e.Err)
	}
	return fmt.Sprintf("%s %q in %s: %v", e.Op, e.Key, e.Where, e.Err)
}

// Unwrap leads errors.Is to the reason.
func (e *StoreError) Unwrap() error { return e.Err }
