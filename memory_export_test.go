package echosession

// Held returns how many entries and how many subjects s holds, the expired
// included.
func (s *MemoryStore) Held() (entries, subjects int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries), len(s.subjects)
}
