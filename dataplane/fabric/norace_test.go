//go:build !race

package fabric

const raceDetector = false
