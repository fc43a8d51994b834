package main

import "context"

func runScale(ctx context.Context, p plan, quick, full bool) error { return nil }
