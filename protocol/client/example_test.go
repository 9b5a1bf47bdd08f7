package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/stockmesh/stockmesh/protocol"
	"github.com/stockmesh/stockmesh/protocol/client"
)

func ExampleDial() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Config{Endpoints: []string{"http://127.0.0.1:8080"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	// The key makes the reservation safe to repeat, here or after a crash.
	r, err := c.Reserve(ctx, []protocol.Line{{SKU: "tee-red-m", Quantity: 2}}, client.Key("order-17:reserve"))
	if errors.Is(err, &protocol.Error{Code: protocol.CodeInsufficientStock}) {
		fmt.Println("sold out")
		return
	}
	if err != nil {
		log.Fatal(err)
	}
	if _, err := c.Confirm(ctx, r.ID, client.Key("order-17:confirm")); err != nil {
		log.Fatal(err)
	}
}

func ExampleClient_Subscribe() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.Config{Endpoints: []string{"eu-1:8080", "us-1:8080"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	s, err := c.Subscribe(ctx, protocol.Selector{Prefixes: []string{"tee-"}}, client.SubscribeOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for {
		u, err := s.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for _, it := range u.Items {
			fmt.Println(it.SKU, it.Location, it.Available, u.Current)
		}
	}
}
