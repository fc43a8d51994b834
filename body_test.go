package echosession_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/echosession/echosession"
)

// FuzzBodyFields compares the search of bodies with the decoders of the standard
// library, which keep everything.
func FuzzBodyFields(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, ` { "a" : "b" , "accessToken" : "t" } `, `{"accessToken":"\u0074\ud83d\ude00"}`, `{"access\u0054oken":{"a":["}"]}}`,
		`{"accessToken":1,"accessToken":"t"}`, `{"x":-1.5e3,"accessToken":null}`, `["accessToken","t"]`, `{"a\"b":true,"\ud800":"x","accessToken":"t"}`,
		`{"\/\b\f\n\r\t\\":"\\"}`, `{"accessToken":"t"} `, `{"accessToken":"t"}x`,
		`accessToken=t`, `a&&accessToken=t;x&b=1`, `%61ccessToken=%74+u`, `access+Token=1&accessToken=%zz`, `accessToken&accessToken=`, `%zz&accessToken=a=b`,
	} {
		f.Add(seed, "accessToken")
	}
	f.Add(`{"\n\u00e9\ud83d\ude00 ":"t"}`, "\né😀 ")
	f.Add(`%0a%c3%a9=t&+=u`, "\né")
	f.Fuzz(func(t *testing.T, body, name string) {
		if name == "" || strings.ContainsRune(name, '\uFFFD') {
			return // no field has such a name
		}
		values, _ := url.ParseQuery(body)
		same(t, "form", values[name], func() (string, error) { return echosession.OnlyInForm(body, name) })
		if json.Valid([]byte(body)) && len(body) > 0 {
			same(t, "JSON", members(t, body, name), func() (string, error) { return echosession.OnlyInJSON([]byte(body), name) })
		}
	})
}

// same checks that a search finds the one value that a decoder found.
func same(t *testing.T, kind string, decoded []string, search func() (string, error)) {
	t.Helper()
	want := ""
	if len(decoded) == 1 {
		want = decoded[0]
	}
	got, err := search()
	if errors.Is(err, echosession.ErrAmbiguousToken) != (len(decoded) > 1) || got != want {
		t.Errorf("%s: %q, %v; a decoder finds %q", kind, got, err, decoded)
	}
}

// members returns the values of the members with a name, "" for each that is no
// string.
func members(t *testing.T, body, name string) (values []string) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(body)))
	if first, err := dec.Token(); err != nil || first != json.Delim('{') {
		return nil
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := dec.Decode(&value); err != nil && !strings.Contains(err.Error(), "cannot unmarshal") {
			t.Fatal(err)
		}
		if key == name {
			s, _ := value.(string)
			values = append(values, s)
		}
	}
	return values
}

func TestTrustedOriginsAreWhatBrowsersSend(t *testing.T) {
	for origin, ok := range map[string]bool{
		"https://app.example":       true,
		"https://app.example:8443":  true,
		"http://localhost:3000":     true,
		"capacitor://localhost":     true,
		"ionic://localhost":         true,
		"chrome-extension://abcdef": true,
		"https://[2001:db8::1]":     true,
		"https://App.example":       false,
		"https://app.example/":      false,
		"https://app.example:443":   false,
		"http://app.example:80":     false,
		"https://ada@app.example":   false,
		"HTTPS://app.example":       false,
		"app.example":               false,
		"https://":                  false,
		"file://":                   false,
		"null":                      false,
		"*":                         false,
	} {
		_, err := echosession.New[User](mistaken(func(c *echosession.Config) {
			c.Cookie, c.TrustedOrigins = &echosession.Cookie{}, []string{origin}
		}))
		var mistake *echosession.ConfigError
		if errors.As(err, &mistake) == ok || !ok && mistake.Field != "TrustedOrigins" {
			t.Errorf("%q: %v", origin, err)
		}
	}
}
