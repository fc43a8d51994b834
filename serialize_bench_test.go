package echosession_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"testing"

	"github.com/echosession/echosession"
	"github.com/vmihailenco/msgpack/v5"
)

func BenchmarkEncode(b *testing.B) {
	v := anAccount()
	for name, s := range map[string]echosession.Serializer{"record": plain[account](b), "sealed record": sealed[account](b, key(1))} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Encode(aHeader(), &v, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+" over its predecessor", func(b *testing.B) {
			prev := encode(b, s, aHeader(), &v, nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Encode(aHeader(), &v, prev); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("record with unknown fields", func(b *testing.B) {
		s := plain[account](b)
		prev := encode(b, plain[newerAccount](b), aHeader(), &newerAccount{account: v, Newer: "x"}, nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Encode(aHeader(), &v, prev); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare msgpack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := msgpack.Marshal(&v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(&v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("gob", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := gob.NewEncoder(new(bytes.Buffer)).Encode(&v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

type newerAccount struct {
	account
	Newer string
}

func BenchmarkDecode(b *testing.B) {
	v := anAccount()
	for name, s := range map[string]echosession.Serializer{"record": plain[account](b), "sealed record": sealed[account](b, key(1))} {
		record := encode(b, s, aHeader(), &v, nil)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var got account
				if _, err := s.Decode(idA, record, &got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("scan alone", func(b *testing.B) {
		s := plain[account](b)
		data, err := echosession.Data(s, encode(b, s, aHeader(), &v, nil))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := s.Scan(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("header alone", func(b *testing.B) {
		s := plain[account](b)
		record := encode(b, s, aHeader(), &v, nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Header(record); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare msgpack", func(b *testing.B) {
		data, err := msgpack.Marshal(&v)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var got account
			if err := msgpack.Unmarshal(data, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		data, err := json.Marshal(&v)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var got account
			if err := json.Unmarshal(data, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("gob", func(b *testing.B) {
		var data bytes.Buffer
		if err := gob.NewEncoder(&data).Encode(&v); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var got account
			if err := gob.NewDecoder(bytes.NewReader(data.Bytes())).Decode(&got); err != nil {
				b.Fatal(err)
			}
		}
	})
}
