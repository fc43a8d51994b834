package echosession

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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
//	type      the Go type, of those in goldenTypes
//	codec     "json" when it is not MessagePack
//	key       the encryption key in hexadecimal, when there is one
//	keyspace  with a key
//	expect    "ok", "rewritten" (ok, and today's encoder writes the same bytes),
//	          "corrupt" or "unavailable"
//	id        the ID to ask for
//	created, authenticated, idle, deadline, remembered, subject, device, actor
//	          the header; none when absent
//	binding   likewise, in hexadecimal
//	newer     what a newer release added: flags, number of extras, extras in hexadecimal
//	data      the value as JSON
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
	s, mistakes := newSerializer(typ, serializerConfig{codec: codec, maxSize: 1 << 16, encryptionKeys: keys, keyspace: g.lines["keyspace"]})
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	return typ, s
}

func (g goldenRecord) header(t *testing.T) recordHeader {
	t.Helper()
	at := func(name string) time.Time {
		line, ok := g.lines[name]
		if !ok {
			return time.Time{}
		}
		return must(time.Parse(time.RFC3339Nano, line)).UTC()
	}
	h := recordHeader{
		id: g.lines["id"], createdAt: at("created"), authenticatedAt: at("authenticated"), deadline: at("deadline"),
		remembered: g.lines["remembered"] == "true", subject: g.lines["subject"], device: g.lines["device"], actor: g.lines["actor"],
		binding: string(unhex(t, g.lines["binding"])), idle: must(time.ParseDuration(g.lines["idle"])),
	}
	if newer, ok := g.lines["newer"]; ok {
		var extras string
		if _, err := fmt.Sscan(newer, &h.newer.flags, &h.newer.n, &extras); err != nil {
			t.Fatal(err)
		}
		h.newer.extras = string(unhex(t, extras))
	}
	return h
}

func TestGoldenRecords(t *testing.T) {
	paths, err := filepath.Glob("testdata/records/*.txt")
	if err != nil || len(paths) < 23 {
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
			if want := g.header(t); h != want {
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

// goldenSums are the first halves of the SHA-256 sums of the golden records. From the
// first release on, a line here and its file never change: new ones are added.
var goldenSums = map[string]string{
	"codec-read-as-msgpack":               "9472e5b06b0de6f3a77ffbf3316edb36",
	"codec":                               "1c668a5fc28ff0f46d5d72b99ad39768",
	"header-all":                          "8bab91d532cd1cc8241fe87dbaebb2e1",
	"header-deadline":                     "c6eabd285b0d6810aaacabf447fa8d53",
	"header-no-idle-timeout-long-subject": "e16108d15f066a29eb7d7242c972a91f",
	"header-of-newer-release":             "72d92a540ad5c632ec00bc7b0f7d55b0",
	"hostile-map-of-4-billion-in-map":     "f8c3954159ef4c0e5113640b29c1e392",
	"hostile-map-of-4-billion":            "923c70cc981d4f5e8841ec54022f19ae",
	"map":                                 "6cf6bb548958d8d239b04b98137105ad",
	"sealed-another-key":                  "199b369daa3837c1a0968fcb777f18d9",
	"sealed-another-keyspace":             "75d548bbd2cd12ee91b0e678b1a51b44",
	"sealed-codec":                        "27a8c2ec1cb8bc7aec9abf3cf52ea61d",
	"sealed-created-at-changed":           "d03ea30bd5a6fc43df5c170a2fae4ae4",
	"sealed-header-all":                   "d840f7ba7a089233545eb1eeec0e115a",
	"sealed":                              "3f7feb12d04d665301694c6f9edccec7",
	"string":                              "039de36f31bb992ed3ed91359e95d542",
	"struct-another-id":                   "028d86530d4a12f699bc82eee3e5fcfa",
	"struct-cut":                          "3c3acf0481866d58497e92e486e0178d",
	"struct-of-older-release":             "96186e273a3ccd3bbe73a01c61c9f4cf",
	"struct-read-by-older":                "d8e3403283919cea703c5b2b6c486e59",
	"struct-updated-by-older":             "6276beeec72b6a1e38fe5e7475631d09",
	"struct-without-key":                  "14e552fe5178b7173c4d5f0371b42b14",
	"struct-zero":                         "cc3d4a2559f710f6e4f0738a84b75704",
	"struct":                              "fb3f74daccc22b0fe416b0a87e1beba8",
}

func TestGoldenRecordsDoNotChange(t *testing.T) {
	paths, err := filepath.Glob("testdata/records/*")
	if err != nil || len(paths) != len(goldenSums) {
		t.Errorf("%d golden records, and %d sums, %v", len(paths), len(goldenSums), err)
	}
	for name, want := range goldenSums {
		b, err := os.ReadFile("testdata/records/" + name + ".txt")
		if err != nil {
			t.Error(err)
			continue
		}
		sum := sha256.Sum256(b)
		if got := hex.EncodeToString(sum[:16]); got != want {
			t.Errorf("%s has the sum %s, not %s: records of this format are stored already", name, got, want)
		}
	}
}
