package powerfs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is an inode as the kernel knows it.
type node struct {
	fs.Inode
	disk  *Disk
	inode *inode
}

// handle is an open file.
type handle struct {
	inode         *inode
	atEnd, synced bool // writes of it
}

// Sizes that the disk claims to have: what is watched for being full never is.
const (
	diskPages = 1 << 26
	nameBytes = 255
)

var (
	_ fs.NodeLookuper  = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeReaddirer = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeUnlinker  = (*node)(nil)
	_ fs.NodeRmdirer   = (*node)(nil)
	_ fs.NodeRenamer   = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFlusher   = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeStatfser  = (*node)(nil)
)

// child is the kernel's view of an entry.
func (n *node) child(ctx context.Context, to *inode, out *fuse.EntryOut) *fs.Inode {
	n.disk.attr(to, &out.Attr)
	return n.NewInode(ctx, &node{disk: n.disk, inode: to}, fs.StableAttr{Mode: to.kind(), Ino: to.number})
}

func (i *inode) kind() uint32 {
	if i.dir {
		return syscall.S_IFDIR
	}
	return syscall.S_IFREG
}

func (d *Disk) attr(i *inode, out *fuse.Attr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out.Ino, out.Mode, out.Nlink = i.number, i.kind()|i.mode, uint32(max(i.links, 0))
	out.Size, out.Blksize = uint64(i.file.now.size), pageBytes
	out.Blocks = uint64(len(i.file.now.pages)) * (pageBytes / sectorBytes)
	out.Uid, out.Gid = d.owner, d.group
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	to, err := n.disk.lookup(n.inode, name)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	return n.child(ctx, to, out), 0
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.attr(n.inode, &out.Attr)
	return 0
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if err := n.disk.truncate(n.inode, int64(size)); err != nil {
			return fs.ToErrno(err)
		}
	}
	if mode, ok := in.GetMode(); ok {
		n.disk.chmod(n.inode, mode)
	}
	n.disk.attr(n.inode, &out.Attr)
	return 0
}

func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	var list []fuse.DirEntry
	err := n.disk.with(func() error {
		for _, name := range n.inode.list() {
			to := n.inode.names.now[name]
			list = append(list, fuse.DirEntry{Name: name, Ino: to.number, Mode: to.kind()})
		}
		return nil
	})
	return fs.NewListDirStream(list), fs.ToErrno(err)
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	to, err := n.disk.create(n.inode, name, true, mode)
	if err != nil {
		return nil, fs.ToErrno(err)
	}
	return n.child(ctx, to, out), 0
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	to, err := n.disk.create(n.inode, name, false, mode)
	if err != nil {
		return nil, nil, 0, fs.ToErrno(err)
	}
	return n.child(ctx, to, out), newHandle(to, flags), fuse.FOPEN_DIRECT_IO, 0
}

func newHandle(i *inode, flags uint32) *handle {
	return &handle{inode: i, atEnd: flags&syscall.O_APPEND != 0, synced: flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0}
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return fs.ToErrno(n.disk.remove(n.inode, name, false))
}

func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	return fs.ToErrno(n.disk.remove(n.inode, name, true))
}

// renameExclusive is RENAME_NOREPLACE; there are no other flags here.
const renameExclusive = 1

func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	target, ok := to.(*node)
	if !ok || flags&^renameExclusive != 0 {
		return syscall.EINVAL
	}
	return fs.ToErrno(n.disk.rename(n.inode, name, target.inode, newName, flags == renameExclusive))
}

func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 {
		if err := n.disk.truncate(n.inode, 0); err != nil {
			return nil, 0, fs.ToErrno(err)
		}
	}
	return newHandle(n.inode, flags), fuse.FOPEN_DIRECT_IO, 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, b []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	count, err := n.disk.read(n.inode, b, at)
	return fuse.ReadResultData(b[:count]), fs.ToErrno(err)
}

func (n *node) Write(_ context.Context, f fs.FileHandle, b []byte, at int64) (uint32, syscall.Errno) {
	h, ok := f.(*handle)
	if !ok {
		return 0, syscall.EBADF
	}
	if err := n.disk.write(n.inode, b, at, h.atEnd, h.synced); err != nil {
		return 0, fs.ToErrno(err)
	}
	return uint32(len(b)), 0
}

// Flush is asked for when a file is closed, which makes nothing durable.
func (n *node) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }

// Fsync is that of files and of directories. What fdatasync may leave out is written,
// too.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return fs.ToErrno(n.disk.fsync(n.inode))
}

func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = pageBytes, pageBytes, nameBytes
	out.Blocks, out.Bfree, out.Bavail = diskPages, diskPages, diskPages
	out.Files, out.Ffree = diskPages, diskPages
	return 0
}
