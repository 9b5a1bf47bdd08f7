package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strconv"
	"time"
)

// journal is a run as its clients saw it: a line of JSON for each command that was put
// on its way, and for each answer. With it, whoever looks into a violation knows of
// each key what the client may believe. A nil one keeps nothing.
//
//	{"ms":1512.044,"key":"k3j...-7-1000000042","do":"sell","node":"eu-2","sent":"first"}
//	{"ms":1519.310,"key":"k3j...-7-1000000042","do":"sell","node":"eu-2","got":"ok"}
//
// ms counts from the start of the generator; sent is first or again; got is ok or the
// code of an error.
type journal struct {
	file  io.Closer
	out   *bufio.Writer
	run   string   // begins every key
	nodes []string // their names
	gen   *generator
	line  []byte
}

const journalAcked = "ok"

func createJournal(name, run string, nodes []string, gen *generator) (*journal, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	return &journal{file: f, out: bufio.NewWriterSize(f, 1<<16), run: run, nodes: nodes, gen: gen}, nil
}

func (j *journal) sent(m *member, e *errand) {
	if j == nil {
		return
	}
	how := "first"
	if e.again {
		how = "again"
	}
	e.again = true
	j.write(m, e, "sent", how)
}

func (j *journal) answered(m *member, e *errand, got string) {
	if j != nil {
		j.write(m, e, "got", got)
	}
}

func (j *journal) write(m *member, e *errand, field, value string) {
	b := append(j.line[:0], `{"ms":`...)
	b = strconv.AppendFloat(b, float64(j.gen.now)/float64(time.Millisecond), 'f', 3, 64)
	b = append(append(b, `,"key":"`...), j.run...)
	b = strconv.AppendInt(append(b, '-'), int64(m.number), 10)
	b = strconv.AppendUint(append(b, '-'), e.number, 10)
	b = append(append(b, `","do":"`...), m.does...)
	b = append(append(b, `","node":"`...), j.nodes[e.node]...)
	b = append(append(append(b, `","`...), field...), `":"`...)
	b = append(append(b, value...), "\"}\n"...)
	j.line = b
	_, _ = j.out.Write(b) // what goes wrong is told by close
}

// close writes what is left.
func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return errors.Join(j.out.Flush(), j.file.Close())
}
