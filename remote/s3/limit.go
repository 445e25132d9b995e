package s3

import (
	"context"

	"golang.org/x/time/rate"
)

// limitPiece is how many bytes are waited for at once. Small pieces keep
// several slow uploads moving side by side, which servers that hang up on
// idle connections need.
const limitPiece = 16 << 10

// limit makes one upload keep to a rate that it may share with others.
type limit struct {
	ctx     context.Context
	limiter *rate.Limiter // nil: none
	pause   func()        // waiting here is no stall of the transfer
}

// wait returns as much of p as may be filled now, when left bytes are left to
// send.
func (l limit) wait(p []byte, left int) ([]byte, error) {
	if l.limiter == nil {
		return p, nil
	}
	n := min(len(p), left, limitPiece, l.limiter.Burst())
	if n == 0 {
		return p, nil // the end, or a question that costs nothing
	}
	l.pause()
	return p[:n], l.limiter.WaitN(l.ctx, n)
}
