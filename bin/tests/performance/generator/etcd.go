package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	etcd "go.etcd.io/etcd/client/v3"
)

type etcdTarget struct{}

var always = context.Background()

func dial(worker int) *etcd.Client {
	client, err := etcd.New(etcd.Config{Endpoints: []string{addressOf(worker)}, DialTimeout: 5 * time.Second})
	must(err)
	_, err = client.Get(always, "connected")
	must(err)
	return client
}

func grant(client *etcd.Client) (etcd.LeaseID, error) {
	lease, err := client.Grant(always, 86_400)
	if err != nil {
		return 0, err
	}
	return lease.ID, nil
}

var sharedLease = sync.OnceValue(func() etcd.LeaseID {
	lease, err := grant(dial(0))
	must(err)
	return lease
})

func pair(service string, id string) (string, string) {
	return "/services/" + service + "/" + id,
		fmt.Sprintf(`{"ID":"%s","Name":"%s","Address":"10.0.0.1","Port":8080,"Tags":["a"]}`, id, service)
}

// All keys are under one lease, which is the cheapest that etcd can do.
func (etcdTarget) register(worker int) operation {
	client, lease := dial(worker), sharedLease()
	return func(n int64) error {
		key, value := pair(serviceOf(n), fmt.Sprintf("%s-%d", *prefix, n))
		_, err := client.Put(always, key, value, etcd.WithLease(lease))
		return err
	}
}

// A lease for each key, as each of Sider's instances has a check of its own.
func (etcdTarget) lease(worker int) operation {
	client := dial(worker)
	return func(n int64) error {
		lease, err := grant(client)
		if err != nil {
			return err
		}
		key, value := pair(serviceOf(n), fmt.Sprintf("%s-%d", *prefix, n))
		_, err = client.Put(always, key, value, etcd.WithLease(lease))
		return err
	}
}

var preparePairs = sync.OnceFunc(func() {
	client := dial(0)
	for n := range *number {
		key, value := pair("prepared-"+*prefix, fmt.Sprintf("%s-%d", *prefix, n))
		_, err := client.Put(always, key, value)
		must(err)
	}
})

func (etcdTarget) query(worker int) operation {
	preparePairs()
	client := dial(worker)
	options := []etcd.OpOption{etcd.WithPrefix()}
	if *stale {
		options = append(options, etcd.WithSerializable())
	}
	key, _ := pair("prepared-"+*prefix, "")
	return func(int64) error {
		answer, err := client.Get(always, key, options...)
		if err == nil && len(answer.Kvs) != *number {
			err = fmt.Errorf("%d keys", len(answer.Kvs))
		}
		return err
	}
}

var prepareLeases = sync.OnceValue(func() []etcd.LeaseID {
	client, leases := dial(0), make([]etcd.LeaseID, *number)
	for i := range leases {
		lease, err := grant(client)
		must(err)
		leases[i] = lease
	}
	return leases
})

// One stream for each worker, as etcd's own keep-alive has it.
func (etcdTarget) renew(worker int) operation {
	leases, client := prepareLeases(), dial(worker)
	stream, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(always)
	must(err)
	return func(n int64) error {
		id := leases[n%int64(len(leases))]
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
			return err
		}
		_, err := stream.Recv()
		return err
	}
}

// The watchers share the connections, and those of one connection its stream.
func (etcdTarget) watch() (func(), func(int) (time.Duration, time.Duration)) {
	writer, key := dial(0), "/watched"
	put := func(round int) {
		_, err := writer.Put(always, key, fmt.Sprint(round))
		must(err)
	}
	put(0)
	clients := make([]*etcd.Client, *workers)
	for i := range clients {
		clients[i] = dial(i)
	}
	woken := make(chan time.Time, *number)
	park := sync.OnceFunc(func() {
		for i := range *number {
			changes := clients[i%len(clients)].Watch(always, key)
			go func() {
				for change := range changes {
					if len(change.Events) > 0 {
						woken <- time.Now()
					}
				}
			}()
		}
	})
	return park, func(round int) (time.Duration, time.Duration) {
		return wakes(func() { put(round) }, woken)
	}
}
