#pragma once
// From the published files of MMMB (Parrot, arXiv 2406.02539: mmmb_en.tsv and the like) and MMBench to
// multiple-choice items with images.
#include <string_view>
#include <vector>

#include "data/published/convert.h"

namespace burrow::data {

// A table of tab-separated values, in which a value may stand in double quotes, with its own doubled: a row
// for each record, the first being the names of the columns. Throws an Error with the line for a quote that
// is not closed and for a row of another length.
std::vector<std::map<std::string, std::string>> read_tsv(std::string_view text, const std::string& name);

// Reads the columns index, image, question, A, B, C, D and answer, and, where they are, hint and category.
// `image` is a PNG or JPEG file in base64, or the index of a row that has it. Images are written to `images`
// as <index>.png. An item's first choice that is missing
// ends its choices. Rows whose index is a million or more repeat others with their choices turned, which
// the loader does itself (data.sets.circular), and are left out. `language` goes into every item.
Converted convert_mmmb(const ConvertOptions& options);

}  // namespace burrow::data
