package echosession

// What the tests of the whole package reach in it.

// Effective returns the Config with its defaults.
func (m *Manager[T]) Effective() Config { return m.cfg }

// DefaultTokenLookup returns where an instance with this RequestArg looks.
func DefaultTokenLookup(arg string) string { return defaultLookup(arg, nil) }
