// Package shape encodes values of one Go type as MessagePack, and decodes what
// another release of the program, or an attacker, may have encoded.
//
// [New] looks at the type once and refuses what would not survive the way into an
// encoding and back. With the [Shape] that it returns,
//   - [Shape.Append] encodes a value,
//   - [Shape.Check] walks over an encoding and refuses what the decoder must not see,
//   - [Shape.Decode] checks and decodes,
//   - [Shape.Carry] keeps the fields that another release of the program wrote and
//     this one does not know.
//
// [ProbeCodec] looks at a type that another encoder stores. A [Scanner] reads
// MessagePack of any shape, token by token.
package shape

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/vmihailenco/tagparser/v2"
)

// maxFields bounds the fields of one struct, embedded ones included.
const maxFields = 256

type shapeKind uint8

const (
	shapeAny    shapeKind = iota
	shapeOwn              // encodes itself, to any MessagePack value
	shapeTime             // time.Time
	shapeString           // strings, byte slices, and types that encode themselves to text or bytes
	shapeByteArray
	shapeBool
	shapeInt
	shapeUint
	shapeFloat
	shapePointer
	shapeStruct
	shapeMap
	shapeSlice
	shapeArray
)

// A Shape is what the encoder makes of a Go type: computed once for each type, and
// followed by everything that reads or changes encoded values. It is immutable and
// safe for concurrent use.
//
// The shapes of a recursive type are a cycle.
type Shape struct {
	kind shapeKind
	typ  reflect.Type
	bits int    // of a number
	size int    // of an array
	key  *Shape // of a map
	elem *Shape // of a pointer, map, slice or array

	fields   []shapeField           // of a struct, in the encoder's order
	names    map[string]*shapeField // everything that the decoder takes for a field's name
	numbered []*shapeField          // by shapeField.number
	asArray  bool                   // a struct that is written as an array

	zero    []byte // the encoding of the zero value; nil when it has none that can be read
	keeps   bool   // a struct can occur in it, and with it unknown fields
	settles bool   // see settle
}

type shapeField struct {
	name   string
	where  string // for messages: "User.Name", by the type it belongs to
	index  []int
	number int
	shape  *Shape
}

// lookup finds the field that a name stands for, or nil. As a rule names come in the
// encoder's order: expected is the index in fields where to look first.
func (sh *Shape) lookup(name []byte, expected *int) *shapeField {
	if i := *expected; i < len(sh.fields) && string(name) == sh.fields[i].name {
		*expected = i + 1
		return &sh.fields[i]
	}
	f := sh.names[string(name)]
	if f != nil {
		*expected = f.number + 1
	}
	return f
}

var (
	timeType   = reflect.TypeFor[time.Time]()
	anyType    = reflect.TypeFor[any]()
	stringType = reflect.TypeFor[string]()
)

// A Mistake is one reason why a type cannot be stored.
type Mistake struct {
	// Path names the part at fault, from the type on: "User.Orders[].Done". A type
	// without a name is T.
	Path string

	// Reason says what is wrong, and as a rule how to put it right.
	Reason string
}

// String returns path and reason.
func (m Mistake) String() string { return m.Path + ": " + m.Reason }

// A schema builds shapes and collects everything about a type that would not
// survive the way into an encoding and back.
type schema struct {
	shapes   map[reflect.Type]*Shape
	mistakes []Mistake
}

// New returns the shape of t, or every reason why values of t cannot be stored, and
// no shape.
func New(t reflect.Type) (*Shape, []Mistake) {
	b := &schema{shapes: map[reflect.Type]*Shape{}}
	sh := b.shape(t, typeName(t))
	if len(b.mistakes) > 0 {
		return nil, b.mistakes
	}
	b.finish()
	if mistakes := probe(sh); len(mistakes) > 0 {
		return nil, mistakes
	}
	return sh, nil
}

// finish computes what depends on the shapes inside a shape. Types may be recursive,
// so that is repeated until nothing changes any more.
func (b *schema) finish() {
	// Whether a struct, a time or an interface occurs inside.
	for changed := true; changed; {
		changed = false
		for _, sh := range b.shapes {
			keeps := sh.kind == shapeStruct && !sh.asArray || sh.elem != nil && sh.elem.keeps
			settles := sh.kind == shapeTime || sh.kind == shapeAny || sh.elem != nil && sh.elem.settles
			for i := range sh.fields {
				settles = settles || sh.fields[i].shape.settles
			}
			if keeps != sh.keeps || settles != sh.settles {
				sh.keeps, sh.settles, changed = keeps, settles, true
			}
		}
	}
	for _, sh := range b.shapes {
		data, err := marshalMsgpack(reflect.Zero(sh.typ))
		if err == nil && unbounded(data).all(sh) == nil {
			sh.zero = data
		}
	}
}

// typeName is what a path begins with.
func typeName(t reflect.Type) string {
	if t.Name() == "" {
		return "T"
	}
	return t.Name()
}

// refuse adds a mistake, once: the fields of an embedded struct are met twice.
func (b *schema) refuse(path, format string, args ...any) {
	m := Mistake{path, fmt.Sprintf(format, args...)}
	if !slices.Contains(b.mistakes, m) {
		b.mistakes = append(b.mistakes, m)
	}
}

func (b *schema) shape(t reflect.Type, path string) *Shape {
	if sh := b.shapes[t]; sh != nil {
		return sh
	}
	sh := &Shape{typ: t}
	b.shapes[t] = sh
	mistakes := len(b.mistakes)
	b.build(sh, path)
	if len(b.mistakes) > mistakes {
		delete(b.shapes, t) // to be reported wherever it occurs
	}
	return sh
}

func (b *schema) build(sh *Shape, path string) {
	t := sh.typ
	if t == timeType {
		sh.kind = shapeTime
		return
	}
	if t.Kind() != reflect.Pointer {
		if enc, dec := ownEncoding(t); enc != selfNone || dec != selfNone {
			b.own(sh, enc, dec, path)
			return
		}
	}

	switch t.Kind() {
	case reflect.Bool:
		sh.kind = shapeBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		sh.kind, sh.bits = shapeInt, t.Bits()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		sh.kind, sh.bits = shapeUint, t.Bits()
	case reflect.Float32, reflect.Float64:
		sh.kind, sh.bits = shapeFloat, t.Bits()
	case reflect.String:
		sh.kind = shapeString
	case reflect.Interface:
		sh.kind = shapeAny
		if t.NumMethod() > 0 {
			b.refuse(path, "the type behind the interface %s is not stored: use a concrete type, or tag the field `msgpack:\"-\"`", t)
		}
	case reflect.Pointer:
		sh.kind = shapePointer
		if k := t.Elem().Kind(); k == reflect.Pointer || k == reflect.Interface {
			b.refuse(path, "a pointer to %s that is nil comes back as a nil pointer: use %s itself", t.Elem(), t.Elem())
			return
		}
		sh.elem = b.shape(t.Elem(), path)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			sh.kind = shapeString
			return
		}
		sh.kind, sh.elem = shapeSlice, b.shape(t.Elem(), path+"[]")
	case reflect.Array:
		sh.size = t.Len()
		if t.Elem().Kind() == reflect.Uint8 {
			sh.kind = shapeByteArray
			return
		}
		sh.kind, sh.elem = shapeArray, b.shape(t.Elem(), path+"[]")
	case reflect.Map:
		sh.kind = shapeMap
		if !stableKey(t.Key()) {
			b.refuse(path, "a map key of type %s does not come back as the same key: use a string, an integer, a bool, or an array or struct of those", t.Key())
			return
		}
		sh.key = b.shape(t.Key(), path+"[key]")
		sh.elem = b.shape(t.Elem(), path+"[]")
	case reflect.Struct:
		sh.kind = shapeStruct
		b.structure(sh, path)
	default:
		b.refuse(path, "a value of type %s cannot be stored: tag the field `msgpack:\"-\"`", t)
	}
}

// own handles a type that encodes itself.
func (b *schema) own(sh *Shape, enc, dec selfEncoding, path string) {
	switch {
	case enc == selfNone:
		b.refuse(path, "%s has a method that decodes it and none that encodes it", sh.typ)
	case dec == selfNone:
		b.refuse(path, "%s has a method that encodes it and none that decodes it", sh.typ)
	case promoted(sh.typ):
		b.refuse(path, "an embedded type encodes itself in place of the whole %s: give the embedded field a name", sh.typ)
	}
	sh.kind = shapeOwn
	if enc == selfBytes {
		sh.kind = shapeString
	}
}

// stableKey reports whether keys that are equal are still equal after decoding.
// Times, interfaces and pointers are not. A NaN does not equal itself to begin with.
func stableKey(t reflect.Type) bool {
	if t == timeType {
		return false
	}
	enc, _ := ownEncoding(t)
	switch t.Kind() {
	case reflect.Float32, reflect.Float64, reflect.Interface, reflect.Pointer:
		return false
	case reflect.Array:
		return enc != selfNone || stableKey(t.Elem())
	case reflect.Struct:
		for i := 0; enc == selfNone && i < t.NumField(); i++ {
			if !stableKey(t.Field(i).Type) {
				return false
			}
		}
	}
	return true
}

func (b *schema) structure(sh *Shape, path string) {
	for i := range sh.typ.NumField() {
		if sf := sh.typ.Field(i); sf.Name == "_msgpack" {
			tag := parseTag(sf)
			sh.asArray = tag.HasOption("as_array") || tag.HasOption("asArray")
		}
	}
	fields, names := b.structFields(sh.typ, path)
	sh.fields = fields
	sh.names = make(map[string]*shapeField, len(names))
	for i := range fields {
		fields[i].number = i
		sh.numbered = append(sh.numbered, &fields[i])
	}
	for _, n := range names {
		f := n.field
		if n.of >= 0 {
			f = &fields[n.of]
		} else {
			f.number = len(sh.numbered)
			sh.numbered = append(sh.numbered, f)
		}
		sh.names[n.name] = f
	}
	if len(sh.numbered) > maxFields {
		b.refuse(path, "%d fields are more than %d", len(sh.numbered), maxFields)
	}
	for _, f := range sh.numbered {
		sf := sh.typ.FieldByIndex(f.index)
		f.where = "." + sf.Name
		f.shape = b.shape(sf.Type, path+f.where)
		if sh.typ.Name() != "" {
			f.where = sh.typ.Name() + f.where
		} else {
			f.where = path + f.where
		}
	}
}

// A fieldName is a name under which the decoder finds a field: one in the list
// of fields that are written, or one that is only read.
type fieldName struct {
	name  string
	of    int // index in the list; -1: field
	field *shapeField
}

// structFields finds out what msgpack's getFields finds out: which fields are written,
// in which order, and under which names they are read. It refuses the fields that
// getFields drops or overrides.
func (b *schema) structFields(t reflect.Type, path string) (list []shapeField, names []fieldName) {
	taken := map[string]bool{}
	take := func(name, where string, of int, f *shapeField) {
		if taken[name] {
			b.refuse(where, "the name %q is taken by another field of %s: rename it with a tag such as `msgpack:\"other\"`", name, t)
			return
		}
		taken[name] = true
		names = append(names, fieldName{name, of, f})
	}
	add := func(f shapeField, where string) {
		take(f.name, where, len(list), nil)
		list = append(list, f)
	}

	for i := range t.NumField() {
		sf := t.Field(i)
		where := path + "." + sf.Name
		tag := parseTag(sf)
		if tag.Name == "-" || sf.Name == "_msgpack" || sf.Name == "_" {
			continue
		}
		if !sf.IsExported() && !(sf.Anonymous && sf.Type.Kind() == reflect.Struct) {
			b.refuse(where, "an unexported field would be lost: export it, or tag it `msgpack:\"-\"`")
			continue
		}
		if tag.HasOption("intern") {
			b.refuse(where, "the option intern is not supported: remove it")
			continue
		}

		f := shapeField{name: tag.Name, index: sf.Index}
		if f.name == "" {
			f.name = sf.Name
		}
		if sf.Anonymous && !tag.HasOption("noinline") {
			inner, ok := b.inlined(sf, tag, taken, where)
			if ok {
				for _, in := range inner {
					in.index = append(append([]int{}, f.index...), in.index...)
					add(in, where+"."+in.name)
				}
				take(f.name, where, -1, &f)
				continue
			}
		}
		if !sf.IsExported() {
			b.refuse(where, "an unexported embedded struct cannot be stored as a field of its own: export it")
			continue
		}
		add(f, where)
		if alias, ok := tag.Options["alias"]; ok {
			take(alias, where, len(list)-1, nil)
		}
	}
	return list, names
}

// inlined returns the fields of an embedded struct that become the embedding
// struct's own.
func (b *schema) inlined(sf reflect.StructField, tag *tagparser.Tag, taken map[string]bool, where string) ([]shapeField, bool) {
	inner := sf.Type
	if inner.Kind() == reflect.Pointer {
		inner = inner.Elem()
	}
	if inner.Kind() != reflect.Struct || inner == timeType {
		return nil, false
	}
	if enc, dec := ownEncoding(inner); enc != selfNone || dec != selfNone {
		return nil, false
	}
	if sf.Type.Kind() == reflect.Pointer {
		b.refuse(where, "an embedded pointer that is nil comes back as a pointer to a zero value: embed %s itself, or tag the field `msgpack:\",noinline\"`", inner)
		return nil, true
	}
	fields, _ := b.structFields(inner, where)
	if !tag.HasOption("inline") {
		for _, f := range fields {
			if taken[f.name] {
				return nil, false
			}
		}
		return fields, true
	}
	kept := fields[:0]
	for _, f := range fields {
		if !taken[f.name] {
			kept = append(kept, f)
		}
	}
	return kept, true
}

func parseTag(sf reflect.StructField) *tagparser.Tag {
	text := sf.Tag.Get("msgpack")
	if text == "" {
		text = sf.Tag.Get(fallbackTag)
	}
	return tagparser.Parse(text)
}

// settle gives a decoded value a form that does not depend on the machine or on the
// numbers: times are in UTC, where the decoder makes them local; whole numbers in
// interfaces are int64, or uint64 when they are too large for int64, where the decoder
// chooses the smallest type.
func settle(v reflect.Value, sh *Shape) {
	if !sh.settles {
		return
	}
	switch sh.kind {
	case shapeTime:
		t := v.Addr().Interface().(*time.Time)
		*t = t.UTC()
	case shapeAny:
		if !v.IsNil() {
			v.Set(reflect.ValueOf(settled(v.Interface())))
		}
	case shapePointer:
		if !v.IsNil() {
			settle(v.Elem(), sh.elem)
		}
	case shapeStruct:
		for i := range sh.fields {
			if f := &sh.fields[i]; f.shape.settles {
				settle(v.FieldByIndex(f.index), f.shape)
			}
		}
	case shapeSlice, shapeArray:
		for i := range v.Len() {
			settle(v.Index(i), sh.elem)
		}
	case shapeMap:
		elem := reflect.New(sh.elem.typ).Elem()
		for key, value := range v.Seq2() {
			elem.Set(value)
			settle(elem, sh.elem)
			v.SetMapIndex(key, elem)
		}
	}
}

func settled(v any) any {
	switch v := v.(type) {
	case int8:
		return int64(v)
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case uint8:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case uint64:
		if int64(v) >= 0 {
			return int64(v)
		}
	case time.Time:
		return v.UTC()
	case []any:
		for i := range v {
			v[i] = settled(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = settled(v[key])
		}
	}
	return v
}

// Flat reports whether assigning a value of type t copies all of it.
func Flat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Array:
		return Flat(t.Elem())
	case reflect.Struct:
		if t == timeType {
			return true // its *Location is never changed
		}
		for i := range t.NumField() {
			if !Flat(t.Field(i).Type) {
				return false
			}
		}
		return true
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface,
		reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return false
	}
	return true
}
