#pragma once
// Scores of guessing from the training answers without reading image or prompt: a lower bound for models.
#include <cstdint>
#include <string>

#include "data/sets/format.h"

namespace burrow::train {

// Expected shares of test questions that each guesser answers correctly.
struct Baselines {
  double chance = 0;  // guesses uniformly among the distinct training answers to the same question, or among
                      // all training answers if the question is new
  double majority = 0;  // always guesses the most frequent training answer
  double blind = 0;     // guesses the most frequent training answer to the same question; else as majority
};

// Computes the baselines from a training and a test file. As in evaluation, only the first turn of a record
// and at most `limit` test records (0: all) are read. Ties are resolved alphabetically. For multiple-choice
// items, chance is uniform over the item's choices, majority is the most frequent label, and blind compares
// the texts of choices with answers to training items of the same context and question. With `circle`, chance
// must be right in every rotation of the choices, and majority never is. Throws for format text.
Baselines baselines(data::Format format, const std::string& train_file, const std::string& test_file,
                    int64_t limit, bool circle = false);

}  // namespace burrow::train
