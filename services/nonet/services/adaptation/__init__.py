"""Regressors and their adaptation to a site: answers with a standard deviation, and jobs that make of
unlabelled rows of a site a new version of the model.

Packages
--------
- `task`: what can be asked, and `SERVICE`
- `regress`, `derive`: the Open Inference Protocol model of a regressor
- `columns`, `table`: rows in the data's own units, and files of them
- `adapt`, `upload`, `job`: the job
- `sites`: the models of single sites
- `importing`: regressors made elsewhere
"""
