package dump

import "math"

// value reads one value of a column's kind.
func (p *parser) value(c *Column, v *Value) (err error) {
	if c.Nullable && p.skip("NULL") {
		*v = Value{}
		return nil
	}
	v.Kind = c.Kind
	switch c.Kind {
	case Integer:
		v.Bytes = nil
		v.Int, err = p.integer()
	case Text:
		v.Bytes, err = p.text()
	case Bytes:
		v.Bytes, err = p.bytes()
	}
	return err
}

// integer reads an int64 as SQLite prints it.
func (p *parser) integer() (int64, error) {
	start := p.pos
	negative := p.is('-')
	digits := p.pos
	var n uint64
	for p.pos < len(p.buf) && p.buf[p.pos]-'0' <= 9 {
		d := uint64(p.buf[p.pos] - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, Errorf("an integer outside of 64 bits")
		}
		n = n*10 + d
		p.pos++
	}
	switch length := p.pos - digits; {
	case length == 0:
		return 0, Errorf("%q instead of an integer", excerpt(p.buf[start:]))
	case p.buf[digits] == '0' && (length > 1 || negative):
		return 0, Errorf("%q is not how an integer is written", p.buf[start:p.pos])
	case negative && n <= 1<<63:
		return -int64(n-1) - 1, nil
	case !negative && n < 1<<63:
		return int64(n), nil
	}
	return 0, Errorf("an integer outside of 64 bits")
}

func (p *parser) text() ([]byte, error) {
	if !p.is('\'') {
		return nil, Errorf("%q instead of a text", excerpt(p.buf[p.pos:]))
	}
	start := p.pos
	for ; p.pos < len(p.buf); p.pos++ {
		switch c := p.buf[p.pos]; {
		case c == '\'':
			p.pos++
			return p.buf[start : p.pos-1], nil
		case c < 0x20, c > 0x7e, c == '\\':
			return nil, Errorf("byte %#02x in a text", c)
		}
	}
	return nil, Errorf("a text without end")
}

// bytes decodes hexadecimal digits where they stand.
func (p *parser) bytes() ([]byte, error) {
	if !p.skip("X'") {
		return nil, Errorf("%q instead of bytes", excerpt(p.buf[p.pos:]))
	}
	start, out := p.pos, p.pos
	for {
		if p.is('\'') {
			return p.buf[start:out], nil
		}
		if len(p.buf)-p.pos < 2 {
			return nil, Errorf("bytes without end")
		}
		high, low := digit(p.buf[p.pos]), digit(p.buf[p.pos+1])
		if high|low > 15 {
			return nil, Errorf("%q are not two hexadecimal digits in upper case", p.buf[p.pos:p.pos+2])
		}
		p.buf[out] = high<<4 | low
		out++
		p.pos += 2
	}
}

// digit is the value of a hexadecimal digit, or 0xff.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}
