#pragma once
// Converts the published files of MMMB (Parrot, arXiv 2406.02539: mmmb_en.tsv and similar) and MMBench to
// multiple-choice items with images.
#include <string_view>
#include <vector>

#include "data/published/convert.h"

namespace burrow::data {

// Parses tab-separated values to a map by column name for each row; the first line names the columns. A value
// may be in double quotes, with quotes inside it doubled. Throws an Error with the line for an unclosed quote
// and for a row of another length.
std::vector<std::map<std::string, std::string>> read_tsv(std::string_view text, const std::string& name);

// Reads the columns index, image, question, A, B, C, D, answer and, if present, hint. `image` is a PNG or
// JPEG file in base64, or the index of the row that has it. Images are written to `images` as <index>.png.
// The first missing choice ends an item's choices. Rows with an index of a million or more repeat others with
// rotated choices and are skipped: the loader rotates choices itself (data.sets.circular).
Converted convert_mmmb(const ConvertOptions& options);

}  // namespace burrow::data
