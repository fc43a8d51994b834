package echosession

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// carry appends fresh, the encoding of a value, to dst and adds the fields that
// prev, an earlier encoding, has and the shape does not: another release wrote
// them. A field that the shape has comes from fresh alone, so what was emptied
// stays empty. Both encodings have passed a scanner's check.
//
// Values meet their predecessors by field name, by map key, by array index; the
// elements of slices as match says. Nothing is carried inside types that encode
// themselves, interfaces, and structs written as arrays.
func carry(dst, fresh, prev []byte, sh *shape) []byte {
	for sh.kind == shapePointer {
		sh = sh.elem
	}
	f, p := scanner{data: fresh}, scanner{data: prev}
	head, _ := f.next()
	old, _ := p.next()
	if !sh.keeps || head.form == formNil || head.form != old.form {
		return append(dst, fresh...)
	}

	switch sh.kind {
	case shapeStruct:
		known, unknown, n := p.fields(sh, old)
		dst = appendMapHeader(dst, head.n+n)
		expected := 0
		for range head.n {
			name := f.value()
			dst = append(dst, name...)
			field := sh.lookup(text(name), &expected)
			dst = carryOver(dst, f.value(), known[field.number], field.shape)
		}
		return append(dst, unknown...)

	case shapeMap:
		byKey := make(map[string][]byte, old.n)
		for range old.n {
			key := p.value()
			byKey[string(key)] = p.value()
		}
		dst = appendMapHeader(dst, head.n)
		for range head.n {
			key := f.value()
			dst = append(dst, key...)
			dst = carryOver(dst, f.value(), byKey[string(key)], sh.elem)
		}
		return dst

	case shapeSlice, shapeArray:
		dst = append(dst, fresh[:f.pos]...)
		elems, olds := f.values(head.n), p.values(old.n)
		if sh.kind == shapeSlice {
			olds = match(elems, olds, sh.elem)
		}
		for i, elem := range elems {
			var prev []byte
			if i < len(olds) {
				prev = olds[i]
			}
			dst = carryOver(dst, elem, prev, sh.elem)
		}
		return dst
	}
	return append(dst, fresh...)
}

func carryOver(dst, fresh, prev []byte, sh *shape) []byte {
	if prev == nil {
		return append(dst, fresh...)
	}
	return carry(dst, fresh, prev, sh)
}

// match finds the predecessor of each element, nil where it has none: first an
// element of equal content, wherever it stands now; then, when there are as many
// elements as before, the one of the same index. So an element that was changed
// in place keeps what is its own, and one that moved up when another was removed
// does not get the other's.
func match(elems, olds [][]byte, sh *shape) [][]byte {
	byContent := make(map[string][]int, len(olds))
	for i, old := range olds {
		content := string(canonical(nil, old, sh))
		byContent[content] = append(byContent[content], i)
	}
	prevs := make([][]byte, len(elems))
	used := make([]bool, len(olds))
	for i, elem := range elems {
		content := string(canonical(nil, elem, sh))
		if equal := byContent[content]; len(equal) > 0 {
			prevs[i] = olds[equal[0]]
			used[equal[0]] = true
			byContent[content] = equal[1:]
		}
	}
	if len(elems) == len(olds) {
		for i := range prevs {
			if prevs[i] == nil && !used[i] {
				prevs[i] = olds[i]
			}
		}
	}
	return prevs
}

// canonical appends what T can see of a value, so that two encodings are equal
// when their contents are: the known fields in the shape's order without those
// that are zero, which may as well be absent, and map entries in the order of
// their keys. A struct and a map end with 0xC1, which no value begins with.
func canonical(dst, data []byte, sh *shape) []byte {
	for sh.kind == shapePointer {
		sh = sh.elem
	}
	s := scanner{data: data}
	tok, _ := s.next()
	switch {
	case sh.kind == shapeStruct && tok.form == formMap:
		known, _, _ := s.fields(sh, tok)
		for number, value := range known {
			if value == nil {
				continue
			}
			f := sh.numbered[number]
			start := len(dst)
			dst = binary.AppendUvarint(dst, uint64(number))
			content := len(dst)
			dst = canonical(dst, value, f.shape)
			if f.zero != nil && bytes.Equal(dst[content:], f.zero) {
				dst = dst[:start]
			}
		}
		return append(dst, 0xc1)
	case sh.kind == shapeMap && tok.form == formMap:
		entries := make([][]byte, tok.n)
		for i := range entries {
			key := s.value()
			entries[i] = canonical(bytes.Clone(key), s.value(), sh.elem)
		}
		slices.SortFunc(entries, bytes.Compare)
		for _, entry := range entries {
			dst = append(dst, entry...)
		}
		return append(dst, 0xc1)
	case sh.elem != nil && tok.form == formArray:
		dst = append(dst, data[:s.pos]...)
		for range tok.n {
			dst = canonical(dst, s.value(), sh.elem)
		}
		return dst
	}
	return append(dst, data...)
}

// fields reads the pairs of a struct: the values of the known fields by their
// number, and the others, names and values, as they are.
func (s *scanner) fields(sh *shape, tok token) (known [][]byte, unknown []byte, n uint64) {
	known = make([][]byte, len(sh.numbered))
	expected := 0
	for range tok.n {
		start := s.pos
		name := s.value()
		value := s.value()
		if f := sh.lookup(text(name), &expected); f != nil {
			known[f.number] = value
		} else {
			unknown = append(unknown, s.data[start:s.pos]...)
			n++
		}
	}
	return known, unknown, n
}

// value returns the next value of data that was checked before.
func (s *scanner) value() []byte {
	start := s.pos
	if err := s.skip(maxDepth, false); err != nil {
		panic("echosession: unchecked data: " + err.Error())
	}
	return s.data[start:s.pos]
}

func (s *scanner) values(n uint64) [][]byte {
	vs := make([][]byte, n)
	for i := range vs {
		vs[i] = s.value()
	}
	return vs
}

// text is the content of an encoded string.
func text(str []byte) []byte {
	s := scanner{data: str}
	tok, _ := s.next()
	return s.last(tok)
}

func appendMapHeader(dst []byte, n uint64) []byte {
	switch {
	case n < 16:
		return append(dst, 0x80|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 0xde), uint16(n))
	default:
		return binary.BigEndian.AppendUint32(append(dst, 0xdf), uint32(n))
	}
}
