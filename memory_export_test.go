package echosession

// Held returns how many entries s holds, the expired included.
func (s *MemoryStore) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}
