// Package echosession gives Echo handlers typed sessions.
package echosession
