package shape

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// probe finds what only shows when encoder and decoder run, such as a method
// with a pointer receiver on the value of a map: it sends values of the shape's
// type through both and names the smallest parts that do not survive.
func probe(sh *Shape) []Mistake {
	p := &prober{samples: map[*Shape]reflect.Value{}, tested: map[*Shape]bool{}}
	return p.test(sh, typeName(sh.typ))
}

type prober struct {
	samples map[*Shape]reflect.Value // of types that encode themselves; invalid when none was found
	tested  map[*Shape]bool
}

// test tries the parts of a type before the type itself.
func (p *prober) test(sh *Shape, path string) []Mistake {
	if sh == nil || p.tested[sh] {
		return nil
	}
	p.tested[sh] = true
	if encodesToRecord(sh.typ) {
		p.samples[sh] = sampleOf(sh)
		return nil
	}
	mistakes := append(p.test(sh.key, path), p.test(sh.elem, path)...)
	for i := range sh.fields {
		mistakes = append(mistakes, p.test(sh.fields[i].shape, sh.fields[i].where)...)
	}
	if len(mistakes) > 0 {
		return mistakes
	}

	zero := reflect.New(sh.typ).Elem()
	if got, err := roundTrip(zero, sh); err == nil {
		if where := difference(zero, got, path, encodesToRecord); where != "" {
			return []Mistake{{where, "a zero value does not come back as it was stored"}}
		}
	}
	full := reflect.New(sh.typ).Elem()
	if !p.populate(full, sh, 0) {
		return nil
	}
	got, err := roundTrip(full, sh)
	if err != nil {
		return []Mistake{{path, fmt.Sprintf("a value of type %s cannot be stored and read back: %v", sh.typ, err)}}
	}
	if where := difference(full, got, path, encodesToRecord); where != "" {
		return []Mistake{{where, "a value does not come back as it was stored"}}
	}
	return nil
}

func roundTrip(v reflect.Value, sh *Shape) (reflect.Value, error) {
	data, err := marshalMsgpack(v)
	if err != nil {
		return reflect.Value{}, err
	}
	if err := unbounded(data).all(sh); err != nil {
		return reflect.Value{}, err
	}
	got := reflect.New(sh.typ).Elem()
	if err := unmarshalMsgpack(data, got); err != nil {
		return reflect.Value{}, err
	}
	settle(got, sh)
	return got, nil
}

// sampleOf finds a value that a type's own methods accept: the zero value, or a small
// one, as in enumerations that do not begin at zero.
func sampleOf(sh *Shape) reflect.Value {
	for n := range 4 {
		v := reflect.New(sh.typ).Elem()
		switch {
		case v.CanInt():
			v.SetInt(int64(n))
		case v.CanUint():
			v.SetUint(uint64(n))
		case v.Kind() == reflect.String:
			v.SetString(strings.Repeat("a", n))
		}
		if _, err := roundTrip(v, sh); err == nil {
			return v
		}
	}
	return reflect.Value{}
}

// populate fills v. It reports false when v needs a value of a type that accepts
// none of the samples: then v cannot be tested.
func (p *prober) populate(v reflect.Value, sh *Shape, depth int) bool {
	if sample, own := p.samples[sh]; own {
		if sample.IsValid() {
			v.Set(sample)
		}
		return sample.IsValid()
	}
	deep := depth > 3 // far enough into a recursive type
	switch sh.kind {
	case shapePointer:
		if deep {
			return true
		}
		v.Set(reflect.New(sh.elem.typ))
		return p.populate(v.Elem(), sh.elem, depth+1)
	case shapeSlice:
		if deep {
			return true
		}
		v.Set(reflect.MakeSlice(sh.typ, 1, 1))
		return p.populate(v.Index(0), sh.elem, depth+1)
	case shapeMap:
		if deep {
			return true
		}
		key, elem := reflect.New(sh.key.typ).Elem(), reflect.New(sh.elem.typ).Elem()
		ok := p.populate(key, sh.key, depth+1) && p.populate(elem, sh.elem, depth+1)
		v.Set(reflect.MakeMap(sh.typ))
		v.SetMapIndex(key, elem)
		return ok
	case shapeArray:
		return sh.size == 0 || p.populate(v.Index(0), sh.elem, depth)
	case shapeStruct:
		for i := range sh.fields {
			if f := &sh.fields[i]; !p.populate(v.FieldByIndex(f.index), f.shape, depth) {
				return false
			}
		}
		return true
	default:
		fill(v, 0)
		return true
	}
}

// encodesToRecord reports whether a type's own methods make what is stored.
func encodesToRecord(t reflect.Type) bool {
	enc, _ := ownEncoding(t)
	return enc != selfNone && t != timeType && t.Kind() != reflect.Pointer
}

// ProbeCodec sends a populated value of type t through the two functions, which get
// a pointer to a value, and returns why it does not come back.
func ProbeCodec(t reflect.Type, marshal func(any) ([]byte, error), unmarshal func([]byte, any) error) []Mistake {
	v, got := reflect.New(t), reflect.New(t)
	fill(v.Elem(), 0)
	err := Recovered(func() error {
		data, err := marshal(v.Interface())
		if err != nil {
			return err
		}
		return unmarshal(data, got.Interface())
	})
	if err != nil {
		return []Mistake{{typeName(t), fmt.Sprintf("the codec cannot store a value and read it back: %v", err)}}
	}
	if path := difference(v.Elem(), got.Elem(), typeName(t), encodesItself); path != "" {
		return []Mistake{{path, "what the codec stores does not come back"}}
	}
	return nil
}

// difference compares like reflect.DeepEqual and returns the path of what differs, or
// "". It does not look into types that encode themselves: whether those are faithful
// is their own business.
func difference(a, b reflect.Value, path string, own func(reflect.Type) bool) string {
	t := a.Type()
	if own(t) || t.Kind() == reflect.Pointer && own(t.Elem()) {
		return ""
	}
	switch {
	case t == timeType:
		// Compared as a whole.
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			sf := t.Field(i)
			if !sf.IsExported() && !(sf.Anonymous && sf.Type.Kind() == reflect.Struct) {
				continue
			}
			if where := difference(a.Field(i), b.Field(i), path+"."+sf.Name, own); where != "" {
				return where
			}
		}
		return ""
	case t.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		return difference(a.Elem(), b.Elem(), path, own)
	case t.Kind() == reflect.Array, t.Kind() == reflect.Slice && a.IsNil() == b.IsNil() && a.Len() == b.Len():
		for i := range a.Len() {
			if where := difference(a.Index(i), b.Index(i), path+"[]", own); where != "" {
				return where
			}
		}
		return ""
	case t.Kind() == reflect.Map && a.IsNil() == b.IsNil() && a.Len() == b.Len():
		for key, value := range a.Seq2() {
			other := b.MapIndex(key)
			if !other.IsValid() {
				return path + "[key]"
			}
			if where := difference(value, other, path+"[]", own); where != "" {
				return where
			}
		}
		return ""
	}
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return ""
	}
	return path
}

var sampleTime = time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC)

// fill sets what it can of any value. It leaves out what is tagged "-". It also leaves
// out types with methods that encode them in any format: such a type may accept only
// some values.
func fill(v reflect.Value, depth int) {
	t := v.Type()
	if t == timeType {
		v.Set(reflect.ValueOf(sampleTime))
		return
	}
	if depth > 4 || encodesItself(t) {
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("a")
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Interface:
		if t == anyType {
			v.Set(reflect.ValueOf("a"))
		}
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(t, 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Array:
		if v.Len() > 0 {
			fill(v.Index(0), depth+1)
		}
	case reflect.Map:
		key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		fill(key, depth+1)
		fill(elem, depth+1)
		v.Set(reflect.MakeMap(t))
		v.SetMapIndex(key, elem)
	case reflect.Struct:
		for i := range v.NumField() {
			if sf := t.Field(i); sf.IsExported() && !strings.Contains(string(sf.Tag), `:"-`) {
				fill(v.Field(i), depth+1)
			}
		}
	default:
		if v.CanInt() {
			v.SetInt(1)
		} else if v.CanUint() {
			v.SetUint(1)
		}
	}
}

func encodesItself(t reflect.Type) bool {
	if t == timeType {
		return false
	}
	for i := range reflect.PointerTo(t).NumMethod() {
		name := reflect.PointerTo(t).Method(i).Name
		if strings.HasPrefix(name, "Marshal") || strings.HasPrefix(name, "Encode") || name == "GobEncode" {
			return true
		}
	}
	return false
}

// promoted reports whether t encodes itself with a method of a type that it
// embeds, which knows nothing of t's other fields.
func promoted(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	zero, full := reflect.New(t).Elem(), reflect.New(t).Elem()
	embeds, others := false, false
	for i := range t.NumField() {
		sf := t.Field(i)
		enc, _ := ownEncoding(sf.Type)
		if sf.Anonymous && enc != selfNone {
			embeds = true
		} else if sf.IsExported() && parseTag(sf).Name != "-" {
			others = true
			fill(full.Field(i), 0)
		}
	}
	if !embeds || !others {
		return false
	}
	a, errA := marshalMsgpack(zero)
	b, errB := marshalMsgpack(full)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
