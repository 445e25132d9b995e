package fs

import (
	"git.eeqj.de/sneak/vaultik/metastore/view"
)

// View is what the tree is made from. Closing the tree closes it.
func (t *Tree) View() *view.View { return t.view }
