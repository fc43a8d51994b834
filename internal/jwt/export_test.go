package jwt

// What the tests of tokens reach in the package.

// Open is the part of Verify that precedes the claims.
func (t *Keyring) Open(token string) (payload string, err error) {
	payload, _, err = t.open(token, func(k *key, typ string) bool { return k.takes(typ) })
	return payload, err
}

// CanSign says of each key whether it could sign.
func (t *Keyring) CanSign() []bool {
	can := make([]bool, len(t.keys))
	for i := range t.keys {
		can[i] = t.keys[i].sign != nil
	}
	return can
}

// TakeAnyType makes the keys verify tokens of any typ: published vectors have others.
func (t *Keyring) TakeAnyType() {
	for i := range t.keys {
		t.keys[i].takes = func(string) bool { return true }
	}
}

func ScanJSONObject(src string, member func(name, value string) error) error {
	return scanJSONObject(src, member)
}

// Size returns the number of entries and the bytes that they are counted as.
func (c *Cache) Size() (entries, bytes int) {
	for i := range c.shards {
		for _, generation := range []map[uint64]*Cached{c.shards[i].young, c.shards[i].elder} {
			for _, e := range generation {
				entries++
				bytes += e.size()
			}
		}
	}
	return entries, bytes
}

// Comparisons returns how many comparisons of names a walk over src takes.
func Comparisons(src string) (int, error) {
	s := jsonScanner{src: src}
	err := s.object(1, nil)
	return s.compared, err
}

// Collide adds an entry for token in the place of another token, as if the two had one
// hash.
func (c *Cache) Collide(token string, v *Token, with string) {
	s, h := c.shard(with)
	s.put(h, &Cached{Token: v, token: token}, c.limit)
}

// Age makes the younger generation of every shard the elder one.
func (c *Cache) Age() {
	for i := range c.shards {
		s := &c.shards[i]
		s.elder, s.young, s.size = s.young, nil, 0
	}
}
