package claudemesh_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// asAnotherUser runs the test that calls it once more, in a process that no file
// mode is waived for.
func asAnotherUser(t *testing.T, dir, variable string) {
	t.Helper()
	command := exec.Command(copyOfTest(t, dir), "-test.run", "^"+t.Name()+"$")
	command.Dir = dir
	command.Env = append(os.Environ(), variable)
	if os.Getuid() == 0 {
		const nobody = 65534
		command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// copyOfTest puts this program where others may run it.
func copyOfTest(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = self.Close() }()
	path := filepath.Join(dir, "test")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(file, self); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
