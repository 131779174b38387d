package vxlan

import "fmt"

// VNI is a VXLAN network identifier: 24 bits. Zero is a valid one.
type VNI uint32

// DefaultVNI is the segment of Corax, and of Raven.
const DefaultVNI VNI = 200

// DefaultPort is the UDP port of Corax, and of Raven.
const DefaultPort = 4472

func (v VNI) check() error {
	if v >= 1<<24 {
		return fmt.Errorf("vni %d does not fit in 24 bits", uint32(v))
	}
	return nil
}
