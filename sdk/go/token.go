package claudemesh

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
)

const maxToken = 4096

// token is the bearer token of calls over TCP.
type token struct {
	mu          sync.Mutex
	file, value string
}

// GetRequestMetadata gives the header.
func (t *token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value == "" {
		value, err := readToken(t.file)
		if err != nil {
			return nil, err
		}
		t.value = value
	}
	return map[string]string{"authorization": "Bearer " + t.value}, nil
}

// RequireTransportSecurity is false: the daemon listens on loopback only and
// speaks no TLS.
func (t *token) RequireTransportSecurity() bool { return false }

// forget lets the next call read the file again, and tells whether there is one.
func (t *token) forget() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == "" {
		return false
	}
	t.value = ""
	return true
}

// hidden tells what cannot stand in a token.
func hidden(r rune) bool { return r <= ' ' || r > '~' }

func readToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", newError(ErrUnauthenticated, "the token cannot be read: %v; name the file local_token in the daemon's directory", err)
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxToken))
	value := strings.TrimSpace(string(content))
	if err != nil || value == "" || strings.ContainsFunc(value, hidden) {
		return "", newError(ErrUnauthenticated, "%s holds no token; name the file local_token in the daemon's directory", path)
	}
	return value, nil
}
