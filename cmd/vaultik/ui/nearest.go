package ui

// Nearest is the word that takes the fewest edits to reach, if that are few. In
// a short word most of it would be another one, so its beginning has to be right.
func Nearest(word string, among []string) string {
	best, least := "", len(word)/3+2
	for _, w := range among {
		if len(word) < 6 && word != "" && w != "" && w[0] != word[0] {
			continue
		}
		if d := edits(word, w); d < least {
			best, least = w, d
		}
	}
	return best
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
