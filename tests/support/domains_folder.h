#pragma once
// A few samples of the generated domains and the config of a small model over them.
#include "data/worlds/make.h"
#include "tests/support/folder.h"

namespace burrow {

constexpr const char* kDomains[] = {"general", "document", "biomedicine"};

struct DomainsFolder : Folder {
  DomainsFolder(const data::MakeOptions& samples, int64_t tokens_per_step) {
    data::make_domains(*this / "data", samples);
    std::string text = fmt::format(
        "model.decoder = {{layers = 2, width = 32, mlp_width = 48}}\n"
        "model.vision = {{layers = 1, width = 32, mlp_width = 32}}\n"
        "train = {{tokens_per_step = {}, log_every = 2}}\n[data]\ntokenizer = '{}'\n",
        tokens_per_step, *this / "data/tokenizer.json");
    for (const char* name : kDomains) {
      text += fmt::format(
          "[[data.sets]]\nname = '{0}'\ntrain = '{1}/{0}/train.json'\ntest = '{1}/{0}/test.json'\n"
          "images = '{1}/{0}/images'\n",
          name, *this / "data");
    }
    put("run.toml", text);
  }
};

}  // namespace burrow
