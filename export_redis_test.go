package echosession

// RedisKeys returns the keys of a session and of its subject's index.
func RedisKeys(keyspace string, ref Ref) (session, index string) {
	r := &redisStore{keyspace: keyspace}
	return r.key(ref), r.index(ref.Subject)
}

// IsSessionKey reports whether Scan takes a key for a session's.
func IsSessionKey(keyspace, key string) bool {
	return (&redisStore{keyspace: keyspace}).isSessionKey(key)
}
