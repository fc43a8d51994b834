package shape

import "math"

// Scan is Check without the text that says where the mistake is, which takes memory.
func (sh *Shape) Scan(data []byte) error { return bounded(data, 64<<10).all(sh) }

// Estimate returns how many bytes of memory a value is taken for.
func (sh *Shape) Estimate(data []byte) (uint64, error) {
	s := unbounded(data)
	err := s.all(sh)
	return math.MaxUint64 - s.room, err
}

// FieldNames returns the names under which the fields of a struct are written.
func (sh *Shape) FieldNames() (names []string) {
	for _, f := range sh.fields {
		names = append(names, f.name)
	}
	return names
}

// CarrySteps is Carry, and counts the tokens that it reads.
func (sh *Shape) CarrySteps(fresh, prev []byte) ([]byte, int) {
	c := newCarrier(fresh, prev)
	return c.carry(nil, sh, place{}, place{}), c.steps
}
