package echosession

// SmallPages makes a Redis store list and revoke by pages of a few sessions.
func SmallPages(s Store) Store {
	small := scriptBounds{makeRoom: defaultBounds.makeRoom, list: 2, listBytes: 1 << 10, revoke: 2}
	s.(*redisStore).bounds = small
	return s
}
