//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package claudemesh

import (
	"errors"
	"io/fs"
)

func isLocked(string) (bool, error) {
	return false, errors.New("this system cannot tell which daemons run")
}

// isForeign is not known here.
func isForeign(fs.FileInfo) bool { return false }
