package shape

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Keeps reports whether fields that the shape does not have can occur in it. When
// they cannot, there is nothing to carry.
func (sh *Shape) Keeps() bool { return sh.keeps }

// Carry appends fresh, the encoding of a value, to dst, and adds the fields that
// prev, an earlier encoding, has and the shape does not: another release wrote
// them. A field that the shape has comes from fresh alone, so what was emptied
// stays empty. Both encodings must have passed [Shape.Check]: Carry panics when one of
// them is not MessagePack.
//
// The predecessor of a value is found by field name, by map key, or by array index. The
// predecessor of a slice's element is the element of equal content. Without
// one, it is the element of the same index if the slice has as many elements as
// before. Nothing is carried inside types that encode themselves, interfaces, and
// structs written as arrays.
func (sh *Shape) Carry(dst, fresh, prev []byte) []byte {
	for sh.kind == shapePointer {
		sh = sh.elem
	}
	f, p := Scanner{Data: fresh}, Scanner{Data: prev}
	head, _ := f.Next()
	old, _ := p.Next()
	if !sh.keeps || head.Form == FormNil || head.Form != old.Form {
		return append(dst, fresh...)
	}

	switch sh.kind {
	case shapeStruct:
		known, unknown, n := p.fields(sh, old)
		dst = appendMapHeader(dst, head.N+n)
		expected := 0
		for range head.N {
			name := f.value()
			dst = append(dst, name...)
			field := sh.lookup(text(name), &expected)
			dst = carryOver(dst, f.value(), known[field.number], field.shape)
		}
		return append(dst, unknown...)

	case shapeMap:
		byKey := make(map[string][]byte, old.N)
		for range old.N {
			key := p.value()
			byKey[string(key)] = p.value()
		}
		dst = appendMapHeader(dst, head.N)
		for range head.N {
			key := f.value()
			dst = append(dst, key...)
			dst = carryOver(dst, f.value(), byKey[string(key)], sh.elem)
		}
		return dst

	case shapeSlice, shapeArray:
		dst = append(dst, fresh[:f.Pos]...)
		elems, olds := f.values(head.N), p.values(old.N)
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

func carryOver(dst, fresh, prev []byte, sh *Shape) []byte {
	if prev == nil {
		return append(dst, fresh...)
	}
	return sh.Carry(dst, fresh, prev)
}

// match finds the predecessor of each element, nil where it has none: first an
// element of equal content, wherever it stands now; then, when there are as many
// elements as before, the one of the same index. So an element that was changed
// in place keeps what is its own, and one that moved up when another was removed
// does not get the other's.
func match(elems, olds [][]byte, sh *Shape) [][]byte {
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
func canonical(dst, data []byte, sh *Shape) []byte {
	for sh.kind == shapePointer {
		sh = sh.elem
	}
	s := Scanner{Data: data}
	tok, _ := s.Next()
	switch {
	case sh.kind == shapeStruct && tok.Form == FormMap:
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
	case sh.kind == shapeMap && tok.Form == FormMap:
		entries := make([][]byte, tok.N)
		for i := range entries {
			key := s.value()
			entries[i] = canonical(bytes.Clone(key), s.value(), sh.elem)
		}
		slices.SortFunc(entries, bytes.Compare)
		for _, entry := range entries {
			dst = append(dst, entry...)
		}
		return append(dst, 0xc1)
	case sh.elem != nil && tok.Form == FormArray:
		dst = append(dst, data[:s.Pos]...)
		for range tok.N {
			dst = canonical(dst, s.value(), sh.elem)
		}
		return dst
	}
	return append(dst, data...)
}

// fields reads the pairs of a struct: the values of the known fields by their
// number, and the others, names and values, as they are.
func (s *Scanner) fields(sh *Shape, tok Token) (known [][]byte, unknown []byte, n uint64) {
	known = make([][]byte, len(sh.numbered))
	expected := 0
	for range tok.N {
		start := s.Pos
		name := s.value()
		value := s.value()
		if f := sh.lookup(text(name), &expected); f != nil {
			known[f.number] = value
		} else {
			unknown = append(unknown, s.Data[start:s.Pos]...)
			n++
		}
	}
	return known, unknown, n
}

// value returns the next value of data that was checked before.
func (s *Scanner) value() []byte {
	start := s.Pos
	if err := s.skip(MaxDepth, false); err != nil {
		panic("echosession: unchecked data: " + err.Error())
	}
	return s.Data[start:s.Pos]
}

func (s *Scanner) values(n uint64) [][]byte {
	vs := make([][]byte, n)
	for i := range vs {
		vs[i] = s.value()
	}
	return vs
}

// text is the content of an encoded string.
func text(str []byte) []byte {
	s := Scanner{Data: str}
	tok, _ := s.Next()
	return s.Last(tok)
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
