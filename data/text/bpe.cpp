// Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) of a tokenizer.json: over bytes written as
// characters (GPT-2, Llama 3, Qwen), or over characters with byte tokens for unknown ones (Llama 2).
#include <queue>

#include "data/json.h"
#include "data/text/text_steps.h"
#include "tensor/utf8.h"

namespace burrow::data {
namespace {

using nlohmann::json;

struct Merge {
  int32_t rank = 0, id = 0;
};

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

class Bpe : public TextModel {
 public:
  Bpe(const json& file, SharedVocabulary vocabulary, const std::string& where)
      : vocabulary_(std::move(vocabulary)), steps_(file, where) {
    const json& model = member(file, "model", where);
    const auto flag = [&](const char* key) {
      const auto it = model.find(key);
      if (it == model.end() || it->is_null()) return false;
      BURROW_CHECK(it->is_boolean(), "{}: model.{} must be true or false, not {}", where, key,
                   it->type_name());
      return it->get<bool>();
    };
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const auto it = model.find(key);
      BURROW_CHECK(it == model.end() || it->is_null() || *it == "", "{}: model.{} is not supported", where,
                   key);
    }
    if (const auto it = model.find("dropout"); it != model.end())
      BURROW_CHECK(it->is_null() || *it == 0, "{}: model.dropout is not supported", where);
    fuse_unknown_ = flag("fuse_unk");
    ignore_merges_ = flag("ignore_merges");
    if (const auto it = model.find("unk_token"); it != model.end() && !it->is_null())
      unknown_ = vocabulary_->find(string_member(model, "unk_token", where + " model"));
    if (flag("byte_fallback")) {
      for (int b = 0; b < 256; ++b) bytes_.push_back(piece(fmt::format("<0x{:02X}>", b)));
    }
    read_merges(member(model, "merges", where + " model"), where);
  }

  void encode(std::string_view text, Place place, std::vector<int32_t>& ids) const override {
    for (const std::string& p : steps_.pieces(text, place)) encode_piece(p, ids);
  }
  std::string decode(std::span<const int32_t> ids) const override {
    Pieces tokens;
    for (const int32_t id : ids) tokens.push_back(vocabulary_->words[static_cast<size_t>(id)]);
    return steps_.join(std::move(tokens));
  }

 private:
  // The id of a token that text may yield; -1 when absent or special.
  int32_t piece(std::string_view token) const {
    const int32_t id = vocabulary_->find(token);
    return vocabulary_->is_special(id) ? -1 : id;
  }

  // Reads pairs "a b" or ["a", "b"], the highest priority first.
  void read_merges(const json& list, const std::string& where) {
    BURROW_CHECK(list.is_array(), "{}: model.merges must be an array, not {}", where, list.type_name());
    for (size_t rank = 0; rank < list.size(); ++rank) {
      const json& pair = list[rank];
      std::string left, right;
      if (pair.is_string()) {
        const auto& text = pair.get_ref<const std::string&>();
        const size_t space = text.find(' ');
        if (space != text.npos) left = text.substr(0, space), right = text.substr(space + 1);
      } else if (pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string()) {
        left = pair[0], right = pair[1];
      }
      BURROW_CHECK(!left.empty() && !right.empty(), "{}: model.merges[{}] is not a pair of tokens", where,
                   rank);
      const int32_t l = vocabulary_->find(left), r = vocabulary_->find(right),
                    both = vocabulary_->find(left + right);
      for (const auto& [id, token] : {std::pair{l, left}, {r, right}, {both, left + right}})
        BURROW_CHECK(id >= 0, "{}: model.merges[{}] has '{}', which model.vocab lacks", where, rank, token);
      // A repeated pair replaces the earlier one, as in Hugging Face's table.
      if (!vocabulary_->is_special(both)) merges_[pair_key(l, r)] = {static_cast<int32_t>(rank), both};
    }
  }

  // The ids of a piece's characters before any merge.
  std::vector<int32_t> characters(std::string_view text) const {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < text.size();) {
      const std::string_view c = text.substr(i, utf8_step(text, i).bytes);
      i += c.size();
      if (const int32_t id = piece(c); id >= 0) {
        ids.push_back(id);
      } else if (!bytes_.empty() && std::all_of(c.begin(), c.end(), [&](char b) { return byte(b) >= 0; })) {
        for (const char b : c) ids.push_back(byte(b));
      } else if (unknown_ >= 0 && !(fuse_unknown_ && !ids.empty() && ids.back() == unknown_)) {
        ids.push_back(unknown_);
      }
    }
    return ids;
  }
  int32_t byte(char b) const { return bytes_[static_cast<uint8_t>(b)]; }

  void encode_piece(const std::string& text, std::vector<int32_t>& out) const {
    if (const int32_t whole = ignore_merges_ ? piece(text) : -1; whole >= 0) return out.push_back(whole);
    std::vector<int32_t> ids = characters(text);
    const auto n = static_cast<int32_t>(ids.size());
    std::vector<int32_t> previous(ids.size()), next(ids.size());
    for (int32_t i = 0; i < n; ++i)
      previous[static_cast<size_t>(i)] = i - 1, next[static_cast<size_t>(i)] = i + 1;

    // Candidate merges, ordered by rank, then from the left. A candidate that an earlier merge invalidated is
    // skipped when it is popped.
    struct Step {
      int32_t rank, at, id;
      bool operator<(const Step& s) const { return std::pair(rank, at) > std::pair(s.rank, s.at); }
    };
    std::priority_queue<Step> steps;
    const auto merge_at = [&](int32_t at) -> const Merge* {
      const int32_t right = next[static_cast<size_t>(at)];
      if (right >= n) return nullptr;
      const auto it = merges_.find(pair_key(ids[static_cast<size_t>(at)], ids[static_cast<size_t>(right)]));
      return it == merges_.end() ? nullptr : &it->second;
    };
    const auto offer = [&](int32_t at) {
      if (const Merge* m = at >= 0 ? merge_at(at) : nullptr) steps.push({m->rank, at, m->id});
    };
    for (int32_t i = 0; i + 1 < n; ++i) offer(i);
    while (!steps.empty()) {
      const Step step = steps.top();
      steps.pop();
      const auto at = static_cast<size_t>(step.at);
      if (ids[at] < 0) continue;  // merged into the one before it
      const Merge* m = merge_at(step.at);
      if (!m || m->id != step.id) continue;
      const auto right = static_cast<size_t>(next[at]);
      ids[at] = m->id;
      ids[right] = -1;
      next[at] = next[right];
      if (next[at] < n) previous[static_cast<size_t>(next[at])] = step.at;
      offer(previous[at]);
      offer(step.at);
    }
    for (const int32_t id : ids) {
      if (id >= 0) out.push_back(id);
    }
  }

  SharedVocabulary vocabulary_;
  TextSteps steps_;
  std::unordered_map<uint64_t, Merge> merges_;
  std::vector<int32_t> bytes_;  // tokens of the bytes; empty without byte_fallback
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false, ignore_merges_ = false;
};

}  // namespace

std::unique_ptr<TextModel> bpe(const json& file, SharedVocabulary vocabulary, const std::string& where) {
  return std::make_unique<Bpe>(file, std::move(vocabulary), where);
}

}  // namespace burrow::data
