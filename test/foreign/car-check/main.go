package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-car/v2"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	basicnode "github.com/ipld/go-ipld-prime/node/basic"
	_ "github.com/ipld/go-ipld-prime/codec/raw"
)

func main() {
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	reader, err := car.NewBlockReader(file) // verifies the hash of every block
	if err != nil {
		return err
	}
	blocks := map[cid.Cid][]byte{}
	count := 0
	for {
		block, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		blocks[block.Cid()] = block.RawData()
		count++
	}
	fmt.Printf("root %s\nblocks %d\n", reader.Roots[0], count)
	system := cidlink.DefaultLinkSystem()
	system.StorageReadOpener = func(_ ipld.LinkContext, link ipld.Link) (io.Reader, error) {
		block, ok := blocks[link.(cidlink.Link).Cid]
		if !ok {
			return nil, fmt.Errorf("no block %s", link)
		}
		return bytes.NewReader(block), nil
	}
	unixfsnode.AddUnixFSReificationToLinkSystem(&system)
	return walk(&system, cidlink.Link{Cid: reader.Roots[0]}, "")
}

func walk(system *ipld.LinkSystem, link ipld.Link, path string) error {
	context := ipld.LinkContext{Ctx: context.Background()}
	chooser := dagpb.AddSupportToChooser(func(ipld.Link, ipld.LinkContext) (ipld.NodePrototype, error) { return basicnode.Prototype.Any, nil })
	prototype, err := chooser(link, context)
	if err != nil {
		return err
	}
	plain, err := system.Load(context, link, prototype)
	if err != nil {
		return err
	}
	node, err := unixfsnode.Reify(context, plain, system)
	if err != nil {
		return err
	}
	if node.Kind() == datamodel.Kind_Map {
		for entries := node.MapIterator(); !entries.Done(); {
			key, value, err := entries.Next()
			if err != nil {
				return err
			}
			name, err := key.AsString()
			if err != nil {
				return err
			}
			child, err := value.AsLink()
			if err != nil {
				return err
			}
			if err := walk(system, child, path+"/"+name); err != nil {
				return err
			}
		}
		return nil
	}
	hash := sha256.New()
	if large, ok := node.(datamodel.LargeBytesNode); ok {
		content, err := large.AsLargeBytes()
		if err != nil {
			return err
		}
		if _, err := io.Copy(hash, content); err != nil {
			return err
		}
	} else {
		content, err := node.AsBytes()
		if err != nil {
			return err
		}
		hash.Write(content)
	}
	fmt.Printf("file %x %s\n", hash.Sum(nil), path)
	return nil
}
