package main

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/vmihailenco/msgpack/v5"
)

// A codec turns a User into the bytes of a record and back.
type codec struct {
	name   string
	encode func(User) ([]byte, error)
	decode func([]byte) (User, error)
}

var codecs = []codec{
	{"msgpack", func(u User) ([]byte, error) { return msgpack.Marshal(&u) }, func(b []byte) (u User, err error) {
		err = msgpack.Unmarshal(b, &u)
		return u, err
	}},
	{"json", func(u User) ([]byte, error) { return json.Marshal(&u) }, func(b []byte) (u User, err error) {
		err = json.Unmarshal(b, &u)
		return u, err
	}},
	{"gob", func(u User) ([]byte, error) {
		var b bytes.Buffer
		err := gob.NewEncoder(&b).Encode(&u)
		return b.Bytes(), err
	}, func(b []byte) (u User, err error) {
		err = gob.NewDecoder(bytes.NewReader(b)).Decode(&u)
		return u, err
	}},
	{"scs", func(u User) ([]byte, error) {
		return scs.GobCodec{}.Encode(time.Unix(0, 0), map[string]any{"user": u})
	}, func(b []byte) (User, error) {
		_, values, err := scs.GobCodec{}.Decode(b)
		u, _ := values["user"].(User)
		return u, err
	}},
}

func TestCodecs(t *testing.T) {
	want := newUser("user")
	for _, c := range codecs {
		t.Run(c.name+" gives back what it was given", func(t *testing.T) {
			b, err := c.encode(want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.decode(b)
			if err != nil {
				t.Fatal(err)
			}
			got.CreatedAt = got.CreatedAt.UTC()
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	u := newUser("user")
	for _, c := range codecs {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var size int
			for b.Loop() {
				record, err := c.encode(u)
				if err != nil {
					b.Fatal(err)
				}
				size = len(record)
			}
			b.ReportMetric(float64(size), "bytes/record")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range codecs {
		record, err := c.encode(newUser("user"))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.decode(record); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
