#pragma once
// What a set's answers give away without a look at image or question: the floor under every score.
#include <cstdint>
#include <string>

#include "data/sets/format.h"

namespace burrow::train {

// Shares of the test questions that are answered rightly, in expectation.
struct Baselines {
  double chance = 0;    // uniform over the distinct training answers to the exact question; over all of the
                        // training answers where the question is new
  double majority = 0;  // the most frequent training answer, always
  double blind = 0;     // the most frequent training answer to the exact question; majority where it is new
};

// From two files of a format. As evaluation does, it reads the first turn of a record, and `limit` test
// records at most (0: all). Of answers that are equally frequent the first in the alphabet is taken. Of
// multiple-choice items chance is uniform over the item's choices, majority the most frequent label of the
// training answers, and blind goes by the words of the choices, among training items of the same context and
// question. Where items are asked in a `circle`, chance must be right in every rotation, and one label never
// is. Throws for texts, which have no answers.
Baselines baselines(data::Format format, const std::string& train_file, const std::string& test_file,
                    int64_t limit, bool circle = false);

}  // namespace burrow::train
