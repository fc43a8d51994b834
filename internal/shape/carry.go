package shape

import (
	"bytes"
	"cmp"
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
// them is not MessagePack. It takes time in proportion to their size, however deeply
// they nest.
//
// The predecessor of a value is found by field name, by map key, or by array index. The
// predecessor of a slice's element is the element of equal content. Without
// one, it is the element of the same index if the slice has as many elements as
// before. Nothing is carried inside types that encode themselves, interfaces, and
// structs written as arrays.
func (sh *Shape) Carry(dst, fresh, prev []byte) []byte {
	return newCarrier(fresh, prev).carry(dst, sh, place{}, place{})
}

// A carrier is one run of Carry. It walks over each of the two encodings once to see
// where the arrays and maps end, and from then on reads nothing twice at one level.
type carrier struct {
	fresh, prev *document

	contents map[string]uint32 // numbers for equal contents, from 1 on
	content  []byte            // what content appends to
	entries  []entry           // what fields appends to
	steps    int               // tokens read: for the tests
}

// A document is an encoding and the extents of the arrays and maps in it.
type document struct {
	data  []byte
	spans []span // in the order in which they begin
}

// A span is the extent of an array or a map, and what is known of its content.
type span struct {
	end    int    // the position behind it
	next   int    // the index of the first span behind it
	number uint32 // of its content; 0: not known yet
	zero   bool   // its content is that of the zero value
}

// A place is where a value begins in a document.
type place struct {
	pos  int
	span int // the index of the first span that begins here or later
}

// none is the place of a value that is not there.
var none = place{pos: -1}

func newCarrier(fresh, prev []byte) *carrier {
	c := &carrier{fresh: &document{data: fresh}, prev: &document{data: prev}}
	for _, d := range []*document{c.fresh, c.prev} {
		c.extents(d, &Scanner{Data: d.data}, MaxDepth)
	}
	return c
}

// extents notes where the next value's arrays and maps end.
func (c *carrier) extents(d *document, s *Scanner, depth int) {
	tok := c.next(s)
	n := tok.N
	switch tok.Form {
	case FormArray:
	case FormMap:
		n *= 2
	default:
		return
	}
	if depth == 0 {
		panic("echosession: unchecked data: " + errDepth.Error())
	}
	i := len(d.spans)
	d.spans = append(d.spans, span{})
	for range n {
		c.extents(d, s, depth-1)
	}
	d.spans[i].end, d.spans[i].next = s.Pos, len(d.spans)
}

func (c *carrier) next(s *Scanner) Token {
	c.steps++
	tok, err := s.Next()
	if err != nil {
		panic("echosession: unchecked data: " + err.Error())
	}
	return tok
}

// read returns a value's first token, and where the first value inside it and the first
// one behind it begin.
func (c *carrier) read(d *document, at place) (tok Token, inside, behind place) {
	s := Scanner{Data: d.data, Pos: at.pos}
	tok = c.next(&s)
	if tok.Form != FormArray && tok.Form != FormMap {
		return tok, none, place{s.Pos, at.span}
	}
	sp := &d.spans[at.span]
	return tok, place{s.Pos, at.span + 1}, place{sp.end, sp.next}
}

// skip returns the bytes of a value, and where the one behind it begins.
func (c *carrier) skip(d *document, at place) (raw []byte, behind place) {
	_, _, behind = c.read(d, at)
	return d.data[at.pos:behind.pos], behind
}

// carry appends the value at f in fresh, with what its predecessor at p in prev has more.
func (c *carrier) carry(dst []byte, sh *Shape, f, p place) []byte {
	for sh.kind == shapePointer {
		sh = sh.elem
	}
	head, inside, behind := c.read(c.fresh, f)
	whole := c.fresh.data[f.pos:behind.pos]
	if p == none || !sh.keeps {
		return append(dst, whole...)
	}
	old, olds, _ := c.read(c.prev, p)
	if head.Form == FormNil || head.Form != old.Form {
		return append(dst, whole...)
	}
	switch sh.kind {
	case shapeStruct:
		return c.carryStruct(dst, sh, inside, head.N, olds, old.N)
	case shapeMap:
		return c.carryMap(dst, sh, inside, head.N, olds, old.N)
	case shapeSlice, shapeArray:
		dst = append(dst, whole[:inside.pos-f.pos]...)
		elems, olds := c.values(c.fresh, inside, head.N), c.values(c.prev, olds, old.N)
		if sh.kind == shapeSlice {
			olds = c.match(elems, olds, sh.elem)
		}
		for i, elem := range elems {
			from := none
			if i < len(olds) {
				from = olds[i]
			}
			dst = c.carry(dst, sh.elem, elem, from)
		}
		return dst
	}
	return append(dst, whole...)
}

// carryStruct appends the n pairs at f, and the unknown ones of the m pairs at p.
func (c *carrier) carryStruct(dst []byte, sh *Shape, f place, n uint64, p place, m uint64) []byte {
	base := len(c.entries)
	unknown := c.fields(c.prev, sh, p, m)
	fields := c.entries[base:]
	known := fields[:len(fields)-unknown]
	dst = appendMapHeader(dst, n+uint64(unknown))
	expected := 0
	for range n {
		name, behind := c.skip(c.fresh, f)
		dst = append(dst, name...)
		field := sh.lookup(text(name), &expected)
		from := none
		if i, ok := slices.BinarySearchFunc(known, field.number, entry.compare); ok {
			from = known[i].value
		}
		dst = c.carry(dst, field.shape, behind, from)
		_, f = c.skip(c.fresh, behind)
	}
	for _, e := range fields[len(known):] {
		_, behind := c.skip(c.prev, e.value)
		dst = append(dst, c.prev.data[e.name:behind.pos]...)
	}
	c.entries = c.entries[:base]
	return dst
}

func (c *carrier) carryMap(dst []byte, sh *Shape, f place, n uint64, p place, m uint64) []byte {
	byKey := make(map[string]place, m)
	for range m {
		key, value := c.skip(c.prev, p)
		byKey[string(key)] = value
		_, p = c.skip(c.prev, value)
	}
	dst = appendMapHeader(dst, n)
	for range n {
		key, value := c.skip(c.fresh, f)
		dst = append(dst, key...)
		from, ok := byKey[string(key)]
		if !ok {
			from = none
		}
		dst = c.carry(dst, sh.elem, value, from)
		_, f = c.skip(c.fresh, value)
	}
	return dst
}

func (c *carrier) values(d *document, at place, n uint64) []place {
	places := make([]place, n)
	for i := range places {
		places[i] = at
		_, at = c.skip(d, at)
	}
	return places
}

// match finds the predecessor of each element, none where it has none: first an
// element of equal content, wherever it stands now; then, when there are as many
// elements as before, the one of the same index. So an element that was changed
// in place keeps what is its own, and one that moved up when another was removed
// does not get the other's.
func (c *carrier) match(elems, olds []place, sh *Shape) []place {
	// The first old element of each content, and for each element the next of the same.
	first := make(map[string]int, len(olds))
	following := make([]int, len(olds))
	for i := len(olds) - 1; i >= 0; i-- {
		content := c.contentOf(c.prev, sh, olds[i])
		following[i] = -1
		if j, ok := first[string(content)]; ok {
			following[i] = j
		}
		first[string(content)] = i
	}
	prevs := make([]place, len(elems))
	used := make([]bool, len(olds))
	for i, elem := range elems {
		content := c.contentOf(c.fresh, sh, elem)
		prevs[i] = none
		if j, ok := first[string(content)]; ok && j >= 0 {
			prevs[i], used[j] = olds[j], true
			first[string(content)] = following[j]
		}
	}
	if len(elems) == len(olds) {
		for i := range prevs {
			if prevs[i] == none && !used[i] {
				prevs[i] = olds[i]
			}
		}
	}
	return prevs
}

// contentOf returns what two values have in common exactly when T sees no difference
// between them. It is good until the next call.
func (c *carrier) contentOf(d *document, sh *Shape, at place) []byte {
	c.content = c.content[:0]
	c.appendContent(d, sh, at)
	return c.content
}

// appendContent appends what T can see of a value: the known fields in the shape's order
// without those that are zero, which may as well be absent, and map entries in the
// order of their keys. An array or a map inside stands there as a number, the same for
// equal contents, behind 0xC1, which no value begins with. It reports whether the value
// is the zero value of its type.
func (c *carrier) appendContent(d *document, sh *Shape, at place) (zero bool) {
	declared := sh
	for sh.kind == shapePointer {
		sh = sh.elem
	}
	tok, inside, behind := c.read(d, at)
	isStruct := sh.kind == shapeStruct && tok.Form == FormMap
	isMap := sh.kind == shapeMap && tok.Form == FormMap
	isList := sh.elem != nil && tok.Form == FormArray
	if !isStruct && !isMap && !isList {
		raw := d.data[at.pos:behind.pos]
		c.content = append(c.content, raw...)
		return declared.zero != nil && bytes.Equal(raw, declared.zero)
	}

	if sp := &d.spans[at.span]; sp.number == 0 {
		start := len(c.content)
		switch {
		case isStruct:
			zero = c.appendStruct(d, sh, inside, tok.N) && declared.kind == shapeStruct && sh.zero != nil
		case isMap:
			c.appendMap(d, sh, inside, tok.N)
		default:
			head := d.data[at.pos:inside.pos]
			c.content = append(c.content, head...)
			zero = declared.kind == shapeArray && tok.N == uint64(sh.size) && bytes.HasPrefix(sh.zero, head)
			for range tok.N {
				zero = c.appendContent(d, sh.elem, inside) && zero
				_, inside = c.skip(d, inside)
			}
		}
		sp.number, sp.zero = c.number(c.content[start:]), zero
		c.content = c.content[:start]
	}
	sp := d.spans[at.span]
	c.content = binary.BigEndian.AppendUint32(append(c.content, 0xc1), sp.number)
	return sp.zero
}

func (c *carrier) number(content []byte) uint32 {
	n, ok := c.contents[string(content)]
	if !ok {
		if c.contents == nil {
			c.contents = make(map[string]uint32)
		}
		n = uint32(len(c.contents) + 1)
		c.contents[string(content)] = n
	}
	return n
}

// appendStruct reports whether all of the n fields are zero.
func (c *carrier) appendStruct(d *document, sh *Shape, at place, n uint64) (zero bool) {
	base := len(c.entries)
	unknown := c.fields(d, sh, at, n)
	fields := c.entries[base : len(c.entries)-unknown]
	zero = true
	for _, e := range fields {
		start := len(c.content)
		c.content = binary.AppendUvarint(c.content, uint64(e.number))
		if c.appendContent(d, sh.numbered[e.number].shape, e.value) {
			c.content = c.content[:start]
		} else {
			zero = false
		}
	}
	c.entries = c.entries[:base]
	return zero
}

func (c *carrier) appendMap(d *document, sh *Shape, at place, n uint64) {
	start := len(c.content)
	ends := make([]int, n)
	for i := range ends {
		key, value := c.skip(d, at)
		c.content = append(c.content, key...)
		c.appendContent(d, sh.elem, value)
		ends[i] = len(c.content)
		_, at = c.skip(d, value)
	}
	all := bytes.Clone(c.content[start:])
	pairs := make([][]byte, n)
	from := start
	for i, end := range ends {
		pairs[i], from = all[from-start:end-start], end
	}
	slices.SortFunc(pairs, bytes.Compare)
	c.content = c.content[:start]
	for _, pair := range pairs {
		c.content = append(c.content, pair...)
	}
}

// An entry is a field of a struct in a document.
type entry struct {
	number int // of a known field; maxFields or more for the others, in their order
	name   int // the position of the name
	value  place
}

func (e entry) compare(number int) int { return cmp.Compare(e.number, number) }

// fields appends the n pairs of a struct to entries, in the order of their numbers, and
// returns how many of them are of unknown fields. Those are the last.
func (c *carrier) fields(d *document, sh *Shape, at place, n uint64) (unknown int) {
	base := len(c.entries)
	expected := 0
	for range n {
		name, value := c.skip(d, at)
		e := entry{number: maxFields + unknown, name: at.pos, value: value}
		if f := sh.lookup(text(name), &expected); f != nil {
			e.number = f.number
		} else {
			unknown++
		}
		c.entries = append(c.entries, e)
		_, at = c.skip(d, value)
	}
	slices.SortFunc(c.entries[base:], func(a, b entry) int { return a.compare(b.number) })
	return unknown
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
