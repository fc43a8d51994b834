package echosession

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// The types whose records stand under testdata/records. They do not change: a
// new one is added beside them.
type (
	golden1 struct {
		UserID  int64             `json:"user_id"`
		Name    string            `json:"name"`
		Mail    string            `msgpack:"mail" json:"email"`
		Roles   []string          `json:"roles"`
		Admin   bool              `json:"admin,omitempty"`
		Ratio   float64           `json:"ratio"`
		Login   time.Time         `json:"login"`
		Prefs   map[string]string `json:"prefs"`
		Items   []goldenItem      `json:"items"`
		Parent  *golden1          `json:"parent"`
		Avatar  []byte            `json:"avatar"`
		Session [4]byte           `json:"session"`
		Any     any               `json:"any"`
		goldenBase
	}
	goldenItem struct {
		SKU string
		Qty int8
	}
	goldenBase struct {
		Created time.Time
		Wait    time.Duration
	}
	golden1Older struct {
		Name string `json:"name"`
	}
)

// A golden record is a file of "name: value" lines, an empty line, and the
// record in hexadecimal. The lines:
//
//	type    the Go type, of those in goldenTypes
//	codec   "json" when it is not MessagePack
//	key     the encryption key in hexadecimal, when there is one
//	expect  "ok", "rewritten" (ok, and today's encoder writes the same bytes),
//	        "corrupt" or "unavailable"
//	id      the ID to ask for
//	created, idle, deadline, subject   the header; no deadline when absent
//	data    the value as JSON
type goldenRecord struct {
	lines  map[string]string
	record []byte
}

var goldenTypes = map[string]reflect.Type{
	"golden1":        reflect.TypeFor[golden1](),
	"golden1Older":   reflect.TypeFor[golden1Older](),
	"map[string]any": reflect.TypeFor[map[string]any](),
	"string":         reflect.TypeFor[string](),
}

func readGolden(t *testing.T, path string) goldenRecord {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(b), "\n\n")
	g := goldenRecord{map[string]string{}, unhex(t, strings.ReplaceAll(body, "\n", ""))}
	for line := range strings.Lines(head) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			t.Fatalf("line %q", line)
		}
		g.lines[name] = value
	}
	return g
}

func (g goldenRecord) serializer(t *testing.T) (reflect.Type, *serializer) {
	typ := goldenTypes[g.lines["type"]]
	if typ == nil {
		t.Fatalf("type %q", g.lines["type"])
	}
	var codec Codec
	if g.lines["codec"] == "json" {
		codec = jsonCodec{}
	}
	var keys [][]byte
	if k, ok := g.lines["key"]; ok {
		keys = append(keys, unhex(t, k))
	}
	s, mistakes := newSerializer(typ, serializerConfig{codec: codec, maxSize: 1 << 16, encryptionKeys: keys})
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	return typ, s
}

func TestGoldenRecords(t *testing.T) {
	paths, err := filepath.Glob("testdata/records/*.txt")
	if err != nil || len(paths) < 12 {
		t.Fatalf("%d golden records, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			g := readGolden(t, path)
			typ, s := g.serializer(t)
			got := reflect.New(typ)
			h, err := s.decode(g.lines["id"], g.record, got.Interface())
			switch g.lines["expect"] {
			case "corrupt":
				if !errors.Is(err, ErrCorrupt) {
					t.Errorf("error %v, want ErrCorrupt", err)
				}
				return
			case "unavailable":
				if !errors.Is(err, ErrStoreUnavailable) {
					t.Errorf("error %v, want ErrStoreUnavailable", err)
				}
				return
			case "ok", "rewritten":
			default:
				t.Fatalf("expect %q", g.lines["expect"])
			}
			if err != nil {
				t.Fatal(err)
			}
			created, err := time.Parse(time.RFC3339Nano, g.lines["created"])
			if err != nil {
				t.Fatal(err)
			}
			idle, err := time.ParseDuration(g.lines["idle"])
			if err != nil {
				t.Fatal(err)
			}
			want := recordHeader{id: g.lines["id"], createdAt: created.UTC(), idle: idle, subject: g.lines["subject"]}
			if deadline, ok := g.lines["deadline"]; ok {
				at, err := time.Parse(time.RFC3339Nano, deadline)
				if err != nil {
					t.Fatal(err)
				}
				want.deadline = at.UTC()
			}
			if h != want {
				t.Errorf("header %+v, want %+v", h, want)
			}
			data, err := json.Marshal(got.Interface())
			if err != nil {
				t.Fatal(err)
			}
			if string(data) != g.lines["data"] {
				t.Errorf("data %s\nwant %s", data, g.lines["data"])
			}
			if g.lines["expect"] == "rewritten" {
				again := encode(t, s, h, got.Interface(), nil)
				copy(again, revisionOf(g.record))
				if !bytes.Equal(again, g.record) {
					t.Errorf("today's record %x\nis not        %x", again, g.record)
				}
			}
		})
	}
}
