package main

import (
	"os/exec"
	"syscall"
)

// inChroot runs a program with root as its file system, as the user id.
func inChroot(root string, id uint32, program string) *exec.Cmd {
	c := &exec.Cmd{Path: program, Args: []string{program}, Dir: "/", Env: []string{}}
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: id, Gid: id}}
	return c
}
