package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

type httpTarget struct{}

// A connection that requests are written to by hand, and answers read: the generator shares the processors with the server.
type connection struct {
	socket  net.Conn
	reader  *bufio.Reader
	host    string
	request []byte // The room of the last one.
}

// What came back. The content is there until the next request, and only if it fits into the connection's buffer.
type answer struct {
	status  int
	index   int64
	length  int
	content []byte
}

var errClosed = errors.New("the connection was closed")

func connect(address string) *connection { return connectReading(address, 4096) }

// connectReading keeps contents of so many bytes.
func connectReading(address string, room int) *connection {
	dialer := dialer()
	socket, err := dialer.Dial("tcp", address)
	must(err)
	return &connection{socket: socket, reader: bufio.NewReaderSize(socket, room), host: address}
}

// send writes one request and reads its answer, of whatever status.
func (c *connection) send(method, path, body string) (got answer, err error) {
	c.request = fmt.Appendf(c.request[:0], "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", method, path, c.host, len(body), body)
	if _, err = c.socket.Write(c.request); err != nil {
		return got, err
	}
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return got, err
	}
	if len(line) < 12 {
		return got, fmt.Errorf("no status: %q", line)
	}
	got.status, err = strconv.Atoi(string(line[9:12]))
	got.length = -1
	closes := false
	for err == nil {
		line, err = c.reader.ReadSlice('\n')
		if err != nil || len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(": "))
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			got.length, err = strconv.Atoi(string(value))
		case len(name) == 7 && bytes.EqualFold(name, []byte("x-index")):
			got.index, err = strconv.ParseInt(string(value), 10, 64)
		case len(name) == 10 && bytes.EqualFold(name, []byte("connection")):
			closes = bytes.EqualFold(value, []byte("close"))
		}
	}
	if err == nil && got.length < 0 {
		err = fmt.Errorf("status %d without a length", got.status)
	}
	if err == nil && got.length <= c.reader.Size() {
		got.content, err = c.reader.Peek(got.length)
	}
	if err == nil {
		_, err = c.reader.Discard(got.length)
	}
	if err == nil && closes {
		err = errClosed
	}
	return got, err
}

// ask is [send] for which another status than 200 is an error.
func (c *connection) ask(method, path, body string) (answer, error) {
	got, err := c.send(method, path, body)
	if err == nil && got.status != 200 {
		err = fmt.Errorf("status %d: %.100s", got.status, got.content)
	}
	return got, err
}

func (c *connection) do(method, path, body string) error {
	_, err := c.ask(method, path, body)
	return err
}

func instance(service, id string, port int64) string { return instanceOf(service, id, port, "600s") }

func (httpTarget) register(worker int) operation {
	c := connect(addressOf(worker))
	return func(n int64) error {
		if *ring > 0 {
			// Those that `fill` registered. The port differs each time: else nothing would change.
			id := scattered(n, *ring)
			body := instanceOf(fmt.Sprintf("%s-%d", *prefix, id%*services), fmt.Sprintf("%s-%d", *prefix, id), n, *ttl)
			return c.do("PUT", "/v1/agent/service/register", body)
		}
		body := instance(serviceOf(n), fmt.Sprintf("%s-%d", *prefix, n), n)
		return c.do("PUT", "/v1/agent/service/register", body)
	}
}

// A registration has its check with it.
func (t httpTarget) lease(worker int) operation { return t.register(worker) }

// prepare registers what is queried and renewed, once.
var prepare = sync.OnceFunc(func() {
	c := connect(addressOf(0))
	for n := range *number {
		must(c.do("PUT", "/v1/agent/service/register", instance("prepared-"+*prefix, fmt.Sprintf("%s-%d", *prefix, n), int64(n))))
	}
})

func (httpTarget) query(worker int) operation {
	prepare()
	c := connectReading(addressOf(worker), 4096+2048*(*number))
	path := fmt.Sprintf("/v1/health/service/prepared-%s?passing=1", *prefix)
	if *stale {
		path += "&stale"
	}
	until := time.Now().Add(5 * time.Second)
	for {
		var found []any
		got, err := c.ask("GET", path, "")
		must(err)
		must(json.Unmarshal(got.content, &found))
		if len(found) == *number {
			break
		}
		if time.Now().After(until) {
			fail("not all instances are found:", len(found))
		}
	}
	return func(int64) error { return c.do("GET", path, "") }
}

func (httpTarget) renew(worker int) operation {
	prepare()
	c := connect(addressOf(worker))
	check := func(n int64) string { return fmt.Sprintf("chk:%s-%d:0", *prefix, n%int64(*number)) }
	if *batch == 1 {
		return func(n int64) error { return c.do("PUT", "/v1/agent/check/pass/"+check(n), "") }
	}
	return func(n int64) error {
		ids := make([]string, *batch)
		for i := range ids {
			ids[i] = `"` + check(n*int64(*batch)+int64(i)) + `"`
		}
		return c.do("PUT", "/v1/batch/renew", "["+strings.Join(ids, ",")+"]")
	}
}

func (httpTarget) watch() (func(), func(int) (time.Duration, time.Duration)) {
	writer := connect(addressOf(0))
	register := func(round int) {
		must(writer.do("PUT", "/v1/agent/service/register", instance("watched", fmt.Sprintf("w-%d", round), 1)))
	}
	register(0)
	path := "/v1/health/service/watched"
	connections := make([]*connection, *number)
	for i := range connections {
		connections[i] = connect(addressOf(i))
	}
	woken := make(chan time.Time, *number)
	park := func() {
		now, err := writer.ask("GET", path, "")
		must(err)
		for _, c := range connections {
			go func() {
				must(c.do("GET", fmt.Sprintf("%s?wait=300s&index=%d", path, now.index), ""))
				woken <- time.Now()
			}()
		}
	}
	return park, func(round int) (time.Duration, time.Duration) {
		return wakes(func() { register(round) }, woken)
	}
}

// wakes writes, and waits for all watchers.
func wakes(write func(), woken <-chan time.Time) (first, last time.Duration) {
	beforeWrite = processing()
	begun := time.Now()
	write()
	for range *number {
		select {
		case at := <-woken:
			took := at.Sub(begun)
			if first == 0 || took < first {
				first = took
			}
			last = max(last, took)
		case <-time.After(20 * time.Second):
			fail("a watcher was not woken")
		}
	}
	return first, last
}
