//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package claudemesh

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// isLocked tells whether a live process holds the lock at path. Lock files and
// sockets outlive their process, locks do not.
func isLocked(path string) (bool, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = file.Close() }()
	// Shared: two that ask at the same time must not take each other for the owner.
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// isForeign tells whether a file is neither this user's nor root's.
func isForeign(info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid()
}
