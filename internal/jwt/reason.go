package jwt

// Reason is a placeholder until the merge.
func Reason(err error) string { return "" }
